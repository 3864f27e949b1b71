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

    # The Kubernetes API, which is no pod.
    dynamic "egress" {
      for_each = local.jobs
      content {
        ports {
          port = "443"
        }
        ports {
          port = "6443"
        }
      }
    }

    egress {
      to {
        dynamic "namespace_selector" {
          for_each = var.dolt_cidr == null ? [1] : []
          content {}
        }
        dynamic "ip_block" {
          for_each = var.dolt_cidr == null ? [] : [var.dolt_cidr]
          content {
            cidr = ip_block.value
          }
        }
      }
      ports {
        port = tostring(var.dolt_port)
      }
    }

    dynamic "egress" {
      for_each = var.egress
      content {
        to {
          ip_block {
            cidr = egress.value.cidr
          }
        }
        dynamic "ports" {
          for_each = egress.value.ports
          content {
            port = tostring(ports.value)
          }
        }
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
