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

    annotations = var.annotations
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
        annotations = local.pod_annotations
      }

      spec {
        service_account_name             = local.service_account
        automount_service_account_token  = local.service_account != null
        enable_service_links             = false
        termination_grace_period_seconds = local.grace_seconds
        node_selector                    = var.node_selector

        dynamic "toleration" {
          for_each = var.tolerations
          content {
            key                = toleration.value.key
            operator           = toleration.value.operator
            value              = toleration.value.value
            effect             = toleration.value.effect
            toleration_seconds = toleration.value.toleration_seconds
          }
        }

        dynamic "image_pull_secrets" {
          for_each = var.image_pull_secrets
          content {
            name = image_pull_secrets.value
          }
        }

        # Replicas go to different nodes where that is possible.
        topology_spread_constraint {
          max_skew           = 1
          topology_key       = "kubernetes.io/hostname"
          when_unsatisfiable = "ScheduleAnyway"

          label_selector {
            match_labels = local.run_select
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
          name              = "bdauto"
          image             = var.image
          image_pull_policy = var.image_pull_policy
          command           = local.run_command

          dynamic "env" {
            for_each = merge(local.env, { BEADS_ACTOR = "beads-dispatcher", BDAUTO_LISTEN = "0.0.0.0:${local.metrics_port}" })
            content {
              name  = env.key
              value = env.value
            }
          }

          env {
            name = "BDAUTO_PUSHGATEWAY_NAMESPACE"
            value_from {
              field_ref {
                field_path = "metadata.namespace"
              }
            }
          }

          # A notification URL holds a secret. A key that is missing is none.
          env {
            name = "BDAUTO_NOTIFY_URL"
            value_from {
              secret_key_ref {
                name     = var.secret_name
                key      = var.secret_notify_urls_key
                optional = true
              }
            }
          }

          env {
            name = "BEADS_DOLT_PASSWORD"
            value_from {
              secret_key_ref {
                name     = var.secret_name
                key      = var.secret_dolt_password_key
                optional = true
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
            requests = var.requests
            limits   = var.limits
          }

          security_context {
            allow_privilege_escalation = false
            read_only_root_filesystem  = true
            run_as_non_root            = true # left out, the provider writes false, over the pod's true

            capabilities {
              drop = ["ALL"]
            }
          }

          dynamic "volume_mount" {
            for_each = local.mounts
            content {
              name       = volume_mount.key
              mount_path = volume_mount.value
              read_only  = volume_mount.key != "tmp"
            }
          }
        }

        volume {
          name = "beads-metadata"
          config_map {
            name = kubernetes_config_map_v1.metadata.metadata[0].name
          }
        }

        volume {
          name = "bdauto-config"
          config_map {
            name = kubernetes_config_map_v1.config.metadata[0].name
          }
        }

        # Without the Secret the pod starts all the same, and bdauto says which file it misses.
        dynamic "volume" {
          for_each = local.token_folders
          content {
            name = "agent-token"
            secret {
              secret_name  = var.secret_name
              optional     = true
              default_mode = "0440"

              items {
                key  = var.secret_token_key
                path = "token"
              }
            }
          }
        }

        # In memory: bd's scratch files cost the node's disk nothing. What is in it counts towards the memory limit.
        volume {
          name = "tmp"
          empty_dir {
            medium     = "Memory"
            size_limit = "64Mi"
          }
        }
      }
    }
  }

  # Kyverno's policies write it into every pod template that they meet.
  lifecycle {
    ignore_changes = [spec[0].template[0].spec[0].dns_config]
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

# For people: the page, from pods that are ready. Nobody logs in: put something in front of it that asks who comes.
resource "kubernetes_service_v1" "page" {
  count = local.run ? 1 : 0

  metadata {
    name      = "bdauto-page"
    namespace = var.namespace
    labels    = local.run_labels
  }

  spec {
    selector = local.run_select

    port {
      name        = "http"
      port        = 80
      target_port = "metrics"
    }
  }
}

# A drain of a node takes one replica at a time. The provider has no unhealthyPodEvictionPolicy: while the Dolt server is
# down, and so no replica ready, a drain waits.
resource "kubernetes_pod_disruption_budget_v1" "run" {
  count = local.run && var.replicas > 1 ? 1 : 0

  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.run_labels
  }

  spec {
    max_unavailable = "1"

    selector {
      match_labels = local.run_select
    }
  }
}
