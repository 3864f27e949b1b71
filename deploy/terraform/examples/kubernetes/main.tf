# One Kubernetes Job for each bead, started by one Deployment of `bdauto run`.

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

variable "mode" {
  description = "\"cronjob\" or \"run\"."
  type        = string
  default     = "run"
}

variable "wait_for_rollout" {
  description = "Whether an apply waits until the Deployment is ready."
  type        = bool
  default     = true
}

module "bdauto" {
  source = "../.."

  mode             = var.mode
  wait_for_rollout = var.wait_for_rollout

  image      = "bdauto:0.1.0"
  dolt_host  = "dolt.beads-server.svc.cluster.local"
  kubernetes = { image = "agent:1" }
}
