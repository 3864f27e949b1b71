# The stack that bdauto takes over, as far as it matters here: two CronJobs that run a shell script, and the ConfigMap with
# bd's metadata.json. The script itself is left out. Kyverno writes dns_config into the pod templates.

terraform {
  required_version = ">= 1.5"

  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = ">= 2.27, < 4.0"
    }
  }
}

provider "kubernetes" {
  config_path = var.kubeconfig
}

variable "kubeconfig" {
  description = "The kubeconfig of the cluster."
  type        = string
  default     = "~/.kube/config"
}

variable "beads_dispatcher_enabled" {
  description = "The kill switch."
  type        = bool
  default     = true
}

resource "kubernetes_config_map" "beads_metadata" {
  metadata {
    name      = "beads-metadata"
    namespace = "beads-server"
  }

  data = {
    "metadata.json" = jsonencode({
      database         = "dolt"
      backend          = "dolt"
      dolt_mode        = "server"
      dolt_server_host = "dolt.beads-server.svc.cluster.local"
      dolt_server_port = 3306
      dolt_server_user = "beads"
      dolt_database    = "code"
      project_id       = "00000000-0000-4000-8000-000000000000"
    })
  }
}

resource "kubernetes_cron_job_v1" "beads_dispatcher" {
  metadata {
    name      = "beads-dispatcher"
    namespace = "beads-server"
  }

  spec {
    schedule                      = "*/2 * * * *"
    suspend                       = !var.beads_dispatcher_enabled
    concurrency_policy            = "Forbid"
    starting_deadline_seconds     = 60
    successful_jobs_history_limit = 3
    failed_jobs_history_limit     = 3

    job_template {
      metadata {}

      spec {
        backoff_limit              = 0
        ttl_seconds_after_finished = 600

        template {
          metadata {
            labels = { app = "beads-dispatcher" }
          }

          spec {
            restart_policy = "Never"

            image_pull_secrets {
              name = "registry-credentials"
            }

            container {
              name    = "dispatcher"
              image   = "registry.example/agent-service:latest"
              command = ["/bin/sh", "-c", "exit 0 # the dispatcher's script"]

              env {
                name  = "BEADBOARD_URL"
                value = "http://beadboard.beads-server.svc.cluster.local"
              }

              env {
                name = "API_BEARER_TOKEN"
                value_from {
                  secret_key_ref {
                    name = "beadboard-agent-service"
                    key  = "api_bearer_token"
                  }
                }
              }

              env {
                name  = "BEADS_ACTOR"
                value = "beads-dispatcher"
              }

              env {
                name  = "HOME"
                value = "/tmp"
              }

              resources {
                requests = { cpu = "50m", memory = "128Mi" }
                limits   = { memory = "256Mi" }
              }

              volume_mount {
                name       = "beads-metadata"
                mount_path = "/etc/beads-metadata"
                read_only  = true
              }
            }

            volume {
              name = "beads-metadata"
              config_map {
                name = kubernetes_config_map.beads_metadata.metadata[0].name
              }
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [spec[0].job_template[0].spec[0].template[0].spec[0].dns_config]
  }
}

resource "kubernetes_cron_job_v1" "beads_reaper" {
  metadata {
    name      = "beads-reaper"
    namespace = "beads-server"
  }

  spec {
    schedule                      = "*/10 * * * *"
    suspend                       = !var.beads_dispatcher_enabled
    concurrency_policy            = "Forbid"
    starting_deadline_seconds     = 60
    successful_jobs_history_limit = 3
    failed_jobs_history_limit     = 3

    job_template {
      metadata {}

      spec {
        backoff_limit              = 0
        ttl_seconds_after_finished = 600

        template {
          metadata {
            labels = { app = "beads-reaper" }
          }

          spec {
            restart_policy = "Never"

            image_pull_secrets {
              name = "registry-credentials"
            }

            container {
              name    = "reaper"
              image   = "registry.example/agent-service:latest"
              command = ["/bin/sh", "-c", "exit 0 # the reaper's script"]

              env {
                name  = "BEADS_ACTOR"
                value = "beads-reaper"
              }

              env {
                name  = "HOME"
                value = "/tmp"
              }

              resources {
                requests = { cpu = "50m", memory = "128Mi" }
                limits   = { memory = "256Mi" }
              }

              volume_mount {
                name       = "beads-metadata"
                mount_path = "/etc/beads-metadata"
                read_only  = true
              }
            }

            volume {
              name = "beads-metadata"
              config_map {
                name = kubernetes_config_map.beads_metadata.metadata[0].name
              }
            }
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [spec[0].job_template[0].spec[0].template[0].spec[0].dns_config]
  }
}
