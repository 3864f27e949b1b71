variable "beads_dispatcher_enabled" {
  description = "The kill switch: false suspends both CronJobs, or scales the Deployment to zero. Nothing is deleted."
  type        = bool
  default     = true
  nullable    = false
}

variable "mode" {
  description = "\"cronjob\": the two CronJobs beads-dispatcher and beads-reaper. \"run\": one Deployment of `bdauto run`."
  type        = string
  default     = "cronjob"

  validation {
    condition     = contains(["cronjob", "run"], var.mode)
    error_message = "mode is \"cronjob\" or \"run\"."
  }
}

variable "image" {
  description = "The image with bdauto and bd, with a tag or a digest."
  type        = string

  validation {
    condition     = can(regex("(:[^/:]+|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "Pin the image: name it with a tag other than latest, or with a digest."
  }
}

variable "image_pull_secrets" {
  description = "Names of the Secrets that let the image be pulled."
  type        = list(string)
  default     = []
}

variable "namespace" {
  description = "The namespace of all objects. It must exist: it usually holds the database too, so this module must not own it."
  type        = string
  default     = "beads-server"
}

variable "dispatcher_schedule" {
  description = "When a dispatch is started, in cron's five fields (mode \"cronjob\")."
  type        = string
  default     = "*/2 * * * *"
}

variable "reaper_schedule" {
  description = "When a reap is started, in cron's five fields (mode \"cronjob\")."
  type        = string
  default     = "*/10 * * * *"
}

variable "dispatch_every" {
  description = "The time between two dispatch cycles, such as 15s (mode \"run\")."
  type        = string
  default     = "15s"
}

variable "reap_every" {
  description = "The time between two reap cycles, such as 10m (mode \"run\")."
  type        = string
  default     = "10m"
}

variable "threshold" {
  description = "How long a bead in progress may go without an update before it counts as stalled, such as 30m."
  type        = string
  default     = "30m"

  validation {
    condition     = can(regex("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.threshold)) && var.threshold != ""
    error_message = "threshold is a duration such as 45s, 30m, 1h30m or 2d."
  }
}

variable "replicas" {
  description = "How many `bdauto run` there are (mode \"run\"). More than one is safe: claims exclude each other in the database."
  type        = number
  default     = 1
}

variable "wait_for_rollout" {
  description = "Whether an apply waits until the Deployment is ready, that is, until bd and BeadBoard answered (mode \"run\")."
  type        = bool
  default     = true
}

variable "beadboard_url" {
  description = "Where BeadBoard answers, such as http://beadboard.beadboard.svc.cluster.local."
  type        = string

  validation {
    condition     = can(regex("^https?://[^@\\s]+$", var.beadboard_url))
    error_message = "beadboard_url is an http or https URL without a user and password."
  }
}

variable "agent_url" {
  description = "Where the agent service answers. With it bdauto knows the free capacity, and the reaper asks for each job."
  type        = string
  default     = null
}

variable "settings" {
  description = "Further settings, by the names of bdauto's environment variables: { BDAUTO_MAX = \"5\" }. No secrets: these end in a ConfigMap."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^BDAUTO_[A-Z_]+$", name))])
    error_message = "settings holds BDAUTO_ variables only."
  }
}

variable "dolt_host" {
  description = "The host of the Dolt SQL server that holds the beads."
  type        = string
}

variable "dolt_port" {
  description = "The port of the Dolt SQL server."
  type        = number
  default     = 3306
}

variable "dolt_user" {
  description = "The user on the Dolt SQL server. Its password, if any, is the key dolt-password of the Secret."
  type        = string
  default     = "root"
}

variable "dolt_database" {
  description = "The database on the Dolt SQL server."
  type        = string
  default     = "beads"
}

variable "secret_name" {
  description = "An existing Secret with the key api-bearer-token (the agent service's) and, optionally, dolt-password."
  type        = string
  default     = "beads-agent"
}

variable "egress_ports" {
  description = "The pods' ports that `bdauto run` may reach inside the cluster: Dolt, BeadBoard, the agent service (mode \"run\")."
  type        = list(number)
  default     = [3306, 3000, 8080]
}
