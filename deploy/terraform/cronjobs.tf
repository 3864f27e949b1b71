resource "kubernetes_cron_job_v1" "this" {
  for_each = local.cron_jobs

  metadata {
    name      = each.key
    namespace = var.namespace
    labels    = merge(local.labels, { "app.kubernetes.io/name" = each.key })
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
            annotations = { "bdauto/config-checksum" = local.config_checksum }
          }

          spec {
            restart_policy                   = "Never"
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
              command = each.value.command

              dynamic "env" {
                for_each = merge(local.env, { BEADS_ACTOR = each.key })
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
  }
}
