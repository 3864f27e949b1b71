locals {
  run_labels = merge(local.labels, { "app.kubernetes.io/name" = "bdauto" })
  run_select = { "app.kubernetes.io/name" = "bdauto" }
  run_command = [
    "bdauto", "run",
    "--dispatch-every", var.dispatch_every,
    "--reap-every", var.reap_every,
    "--threshold", var.threshold,
  ]
}

resource "kubernetes_deployment_v1" "run" {
  count = local.run ? 1 : 0

  wait_for_rollout = var.wait_for_rollout

  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.run_labels
  }

  spec {
    replicas = var.beads_dispatcher_enabled ? var.replicas : 0

    strategy {
      type = "RollingUpdate"
      rolling_update {
        max_unavailable = "0"
        max_surge       = "1"
      }
    }

    selector {
      match_labels = local.run_select
    }

    template {
      metadata {
        labels      = local.run_labels
        annotations = { "bdauto/config-checksum" = local.config_checksum }
      }

      spec {
        automount_service_account_token  = false
        enable_service_links             = false
        termination_grace_period_seconds = local.grace_seconds

        dynamic "image_pull_secrets" {
          for_each = var.image_pull_secrets
          content {
            name = image_pull_secrets.value
          }
        }

        security_context {
          run_as_non_root = true
          run_as_user     = local.user_id
          run_as_group    = local.user_id
          fs_group        = local.user_id

          seccomp_profile {
            type = "RuntimeDefault"
          }
        }

        container {
          name    = "bdauto"
          image   = var.image
          command = local.run_command

          dynamic "env" {
            for_each = merge(local.env, { BEADS_ACTOR = "beads-dispatcher", BDAUTO_LISTEN = "0.0.0.0:${local.metrics_port}" })
            content {
              name  = env.key
              value = env.value
            }
          }

          dynamic "env" {
            for_each = local.secret_env
            content {
              name = env.key
              value_from {
                secret_key_ref {
                  name     = var.secret_name
                  key      = env.value.key
                  optional = env.value.optional
                }
              }
            }
          }

          env_from {
            config_map_ref {
              name = kubernetes_config_map_v1.settings.metadata[0].name
            }
          }

          port {
            name           = "metrics"
            container_port = local.metrics_port
          }

          # Alive is not the same as ready: while bd or BeadBoard is down the process waits and must not be restarted.
          startup_probe {
            period_seconds    = 2
            failure_threshold = 30

            http_get {
              path = "/healthz"
              port = "metrics"
            }
          }

          liveness_probe {
            period_seconds    = 20
            timeout_seconds   = 5
            failure_threshold = 3

            http_get {
              path = "/healthz"
              port = "metrics"
            }
          }

          readiness_probe {
            period_seconds  = 10
            timeout_seconds = 5

            http_get {
              path = "/readyz"
              port = "metrics"
            }
          }
          resources {
            requests = { cpu = "50m", memory = "128Mi" }
            limits   = { memory = "256Mi" }
          }

          security_context {
            allow_privilege_escalation = false
            read_only_root_filesystem  = true
            run_as_non_root            = true # left out, the provider writes false, over the pod's true

            capabilities {
              drop = ["ALL"]
            }
          }

          volume_mount {
            name       = "beads-metadata"
            mount_path = "/etc/beads-metadata"
            read_only  = true
          }

          volume_mount {
            name       = "tmp"
            mount_path = "/tmp"
          }
        }

        volume {
          name = "beads-metadata"
          config_map {
            name = kubernetes_config_map_v1.metadata.metadata[0].name
          }
        }

        volume {
          name = "tmp"
          empty_dir {
            size_limit = "128Mi"
          }
        }
      }
    }
  }
}

# For scraping only. A pod that is not ready keeps its address: bdauto_up is wanted most while something is down.
resource "kubernetes_service_v1" "metrics" {
  count = local.run ? 1 : 0

  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.run_labels
  }

  spec {
    cluster_ip                  = "None"
    publish_not_ready_addresses = true
    selector                    = local.run_select

    port {
      name        = "metrics"
      port        = local.metrics_port
      target_port = "metrics"
    }
  }
}

resource "kubernetes_network_policy_v1" "run" {
  count = local.run ? 1 : 0

  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.run_labels
  }

  spec {
    policy_types = ["Ingress", "Egress"]

    pod_selector {
      match_labels = local.run_select
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
