# The same stack with bdauto in place of the script. The CronJobs and the ConfigMap stay where they are in the cluster and are
# changed in place: nothing is deleted, and no tick runs both programs.

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

module "bdauto" {
  source = "../../.."

  beads_dispatcher_enabled = var.beads_dispatcher_enabled

  image              = "registry.example/agent-service:latest" # the image that has bd, with bdauto added to it
  image_pull_secrets = ["registry-credentials"]

  beadboard_url    = "http://beadboard.beads-server.svc.cluster.local"
  agent_url        = "http://claude-agent-service.claude-agent.svc.cluster.local:8080"
  secret_name      = "beadboard-agent-service"
  secret_token_key = "api_bearer_token"

  dolt_host     = "dolt.beads-server.svc.cluster.local"
  dolt_user     = "beads"
  dolt_database = "code"
  project_id    = "00000000-0000-4000-8000-000000000000"
}
