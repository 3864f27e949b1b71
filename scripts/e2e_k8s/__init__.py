"""What `deploy/` describes, applied to a real Kubernetes API server on loopback."""
