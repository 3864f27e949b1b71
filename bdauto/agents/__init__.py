"""What runs the agent: BeadBoard or the agent service over HTTP, or a command on this machine. See `kinds.py`.

The only room that speaks HTTP. It does not know `bd`.
"""
