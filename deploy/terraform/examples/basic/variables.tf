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

variable "mode" {
  description = "\"cronjob\" or \"run\"."
  type        = string
  default     = "cronjob"
}

variable "wait_for_rollout" {
  description = "Whether an apply waits until the Deployment is ready (mode \"run\")."
  type        = bool
  default     = true
}

variable "image" {
  description = "The image with bdauto and bd."
  type        = string
  default     = "bdauto:0.1.0"
}
