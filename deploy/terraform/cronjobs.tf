resource "kubernetes_cron_job_v1" "this" {
  for_each = local.cron_jobs

  metadata {
    name      = each.key
    namespace = var.namespace
    labels    = merge(local.labels, { "app.kubernetes.io/name" = each.key })

    annotations = var.annotations
  }

  spec {
    schedule                      = each.value.schedule
    suspend                       = !var.beads_dispatcher_enabled
    concurrency_policy            = "Forbid"
    starting_deadline_seconds     = 60
    successful_jobs_history_limit = 3
    failed_jobs_history_limit     = 3

    job_template {
      metadata {
        labels = local.labels
      }

      spec {
        backoff_limit              = 0
        ttl_seconds_after_finished = 600
        # With Forbid, a pod that cannot start (image, Secret) would block every later one: it is given up instead.
        active_deadline_seconds = 600

        template {
          metadata {
            labels      = merge(local.labels, { "app.kubernetes.io/name" = each.key })
            annotations = local.pod_annotations
          }

          spec {
            restart_policy                   = "Never"
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
              command           = each.value.command

              dynamic "env" {
                for_each = merge(local.env, { BEADS_ACTOR = each.key })
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
    }
  }

  # Kyverno's policies write it into every pod template that they meet.
  lifecycle {
    ignore_changes = [spec[0].job_template[0].spec[0].template[0].spec[0].dns_config]
  }
}
