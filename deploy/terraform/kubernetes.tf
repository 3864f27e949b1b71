# One Kubernetes Job for each bead (docs/kubernetes.md), if var.kubernetes is set.

locals {
  jobs         = var.kubernetes == null ? [] : [var.kubernetes]
  copies       = [for agent in local.jobs : true if agent.copy_bdauto]
  agent        = "bdauto-agent"
  agent_select = { "app.kubernetes.io/name" = local.agent }
  # Not part of bdauto: its NetworkPolicy is not for the agents.
  agent_labels = merge({ for name, value in var.labels : name => value if name != "app.kubernetes.io/part-of" }, local.agent_select)

  # That of bdauto's own pods. Null: none.
  service_account = one(kubernetes_service_account_v1.this[*].metadata[0].name)

  job_settings = merge([for agent in local.jobs : {
    BDAUTO_KUBERNETES_TEMPLATE = local.agent
    BDAUTO_AGENT_SLOTS         = tostring(agent.slots)
    BDAUTO_AGENT_TIMEOUT       = agent.timeout
  }]...)
}

# What bdauto may do in this namespace, and nothing else. The agents' pods may do nothing.
resource "kubernetes_service_account_v1" "this" {
  count = length(local.jobs)

  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.labels
  }
}

resource "kubernetes_role_v1" "this" {
  count = length(local.jobs)

  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.labels
  }

  dynamic "rule" {
    for_each = [
      ["batch", "jobs", ["create", "get", "list", "patch"]],
      ["batch", "cronjobs", ["get"]],
      ["", "pods", ["list"]],
      ["", "pods/log", ["get"]],
      ["", "events", ["list"]],
    ]
    content {
      api_groups = [rule.value[0]]
      resources  = [rule.value[1]]
      verbs      = rule.value[2]
    }
  }
}

resource "kubernetes_role_binding_v1" "this" {
  count = length(local.jobs)

  metadata {
    name      = "bdauto"
    namespace = var.namespace
    labels    = local.labels
  }

  role_ref {
    api_group = "rbac.authorization.k8s.io"
    kind      = "Role"
    name      = kubernetes_role_v1.this[0].metadata[0].name
  }

  subject {
    kind      = "ServiceAccount"
    name      = kubernetes_service_account_v1.this[0].metadata[0].name
    namespace = var.namespace
  }
}

# The template of the agents' Jobs: it is suspended for ever, and bdauto copies its jobTemplate. By hand:
# kubectl create job --from=cronjob/bdauto-agent try
resource "kubernetes_cron_job_v1" "agent" {
  count = length(local.jobs)

  metadata {
    name      = local.agent
    namespace = var.namespace
    labels    = local.labels

    annotations = var.annotations
  }

  spec {
    suspend  = true
    schedule = "0 0 1 1 *"

    job_template {
      metadata {
        labels = merge(local.agent_labels, var.kubernetes.queue == "" ? {} : { "kueue.x-k8s.io/queue-name" = var.kubernetes.queue })
      }

      spec {
        backoff_limit = 0

        template {
          metadata {
            labels      = local.agent_labels
            annotations = var.annotations
          }

          spec {
            restart_policy                  = "Never"
            automount_service_account_token = false
            enable_service_links            = false
            node_selector                   = var.kubernetes.node_selector

            dynamic "toleration" {
              for_each = var.kubernetes.tolerations
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

            # What the agent's image need not have: bdauto, its Python, and bd.
            dynamic "init_container" {
              for_each = local.copies
              content {
                name                       = "bdauto"
                image                      = var.image
                image_pull_policy          = var.image_pull_policy
                command                    = ["python", "/opt/bdauto/copy_bdauto.py", "/copy"]
                termination_message_policy = "FallbackToLogsOnError"

                resources {
                  requests = var.requests
                  limits   = var.limits
                }

                security_context {
                  allow_privilege_escalation = false
                  read_only_root_filesystem  = true
                  run_as_non_root            = true

                  capabilities {
                    drop = ["ALL"]
                  }
                }

                volume_mount {
                  name       = "bdauto"
                  mount_path = "/copy"
                }
              }
            }

            container {
              name        = "agent"
              image       = var.kubernetes.image
              command     = concat([var.kubernetes.copy_bdauto ? "/opt/bdauto/bin/bdauto" : "bdauto", "agent-entry", "--"], var.kubernetes.command)
              working_dir = "/tmp"

              dynamic "env" {
                for_each = { HOME = local.env.HOME, BDAUTO_METADATA = local.env.BDAUTO_METADATA }
                content {
                  name  = env.key
                  value = env.value
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

              # Each key of the Secret is a variable of the agent, such as ANTHROPIC_API_KEY.
              env_from {
                secret_ref {
                  name = var.kubernetes.secret_name
                }
              }

              resources {
                requests = var.kubernetes.requests
                limits   = var.kubernetes.limits
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

              dynamic "volume_mount" {
                for_each = local.copies
                content {
                  name       = "bdauto"
                  mount_path = "/opt/bdauto"
                  read_only  = true
                }
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

            dynamic "volume" {
              for_each = local.copies
              content {
                name = "bdauto"
                empty_dir {
                  size_limit = "1Gi"
                }
              }
            }

            volume {
              name = "tmp"
              empty_dir {
                size_limit = var.kubernetes.scratch
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

# For the agents' pods. Nothing comes in. Out: name lookups, HTTPS to anywhere, and the Dolt server.
resource "kubernetes_network_policy_v1" "agent" {
  count = length(local.jobs)

  metadata {
    name      = local.agent
    namespace = var.namespace
    labels    = local.labels
  }

  spec {
    policy_types = ["Ingress", "Egress"]

    pod_selector {
      match_labels = local.agent_select
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
      ports {
        port = "443"
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
  }
}
