# For the pods of both modes. The ports are those of the pods, not of the Services in front of them.
resource "kubernetes_network_policy_v1" "this" {
  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.labels
  }

  spec {
    policy_types = ["Ingress", "Egress"]

    pod_selector {
      match_labels = local.own_labels
    }

    ingress {
      from {
        namespace_selector {}
      }
      ports {
        port = "metrics"
      }
    }

    egress {
      ports {
        port     = "53"
        protocol = "UDP"
      }
      ports {
        port     = "53"
        protocol = "TCP"
      }
    }

    egress {
      to {
        namespace_selector {}
      }
      dynamic "ports" {
        for_each = var.egress_ports
        content {
          port = tostring(ports.value)
        }
      }
    }
  }
}
