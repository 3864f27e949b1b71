# A root module to start from: `terraform init`, then `terraform apply`.
# The kill switch: `terraform apply -var beads_dispatcher_enabled=false`.

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

module "bdauto" {
  source = "../.."

  beads_dispatcher_enabled = var.beads_dispatcher_enabled
  mode                     = var.mode
  wait_for_rollout         = var.wait_for_rollout

  image         = var.image
  beadboard_url = "http://beadboard.beadboard.svc.cluster.local"
  agent_url     = "http://claude-agent-service.claude-agent.svc.cluster.local:8080"
  dolt_host     = "dolt.beads-server.svc.cluster.local"
}
