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
  nullable    = false

  validation {
    condition     = contains(["cronjob", "run"], var.mode)
    error_message = "mode is \"cronjob\" or \"run\"."
  }
}

variable "image" {
  description = "The image with bdauto and bd. Name a tag other than latest, or a digest: anything else is a warning."
  type        = string
  nullable    = false
}

variable "image_pull_policy" {
  description = "\"Always\", \"IfNotPresent\" or \"Never\". Null leaves it to Kubernetes: Always for the tag latest, else IfNotPresent."
  type        = string
  default     = null

  validation {
    condition     = var.image_pull_policy == null ? true : contains(["Always", "IfNotPresent", "Never"], var.image_pull_policy)
    error_message = "image_pull_policy is \"Always\", \"IfNotPresent\" or \"Never\"."
  }
}

variable "image_pull_secrets" {
  description = "Names of the Secrets that let the image be pulled."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "namespace" {
  description = "The namespace of all objects. It must exist: it usually holds the database too, so this module must not own it."
  type        = string
  default     = "beads-server"
  nullable    = false
}

variable "labels" {
  description = "Further labels of all objects and pods. The module's own win."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "annotations" {
  description = "Further annotations of the CronJobs or the Deployment, and of all pods."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "requests" {
  description = "What each pod asks of its node. The container's log is the only thing that is written to the disk."
  type        = map(string)
  default     = { cpu = "50m", memory = "128Mi", ephemeral-storage = "64Mi" }
  nullable    = false
}

variable "limits" {
  description = "What each pod may use at most. The files under /tmp are in memory and count."
  type        = map(string)
  default     = { memory = "256Mi" }
  nullable    = false
}

variable "node_selector" {
  description = "The labels that a node must have to run the pods."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "tolerations" {
  description = "The taints that the pods tolerate."
  type = list(object({
    key                = optional(string)
    operator           = optional(string)
    value              = optional(string)
    effect             = optional(string)
    toleration_seconds = optional(string)
  }))
  default  = []
  nullable = false
}

variable "dispatcher_schedule" {
  description = "When a dispatch is started, in cron's five fields (mode \"cronjob\")."
  type        = string
  default     = "*/2 * * * *"
  nullable    = false

  validation {
    condition     = can(regex("^(@[a-z]+|[^\\s=]+(\\s+[^\\s=]+){4})$", var.dispatcher_schedule))
    error_message = "dispatcher_schedule has cron's five fields, without CRON_TZ or TZ, which Kubernetes refuses."
  }
}

variable "reaper_schedule" {
  description = "When a reap is started, in cron's five fields (mode \"cronjob\")."
  type        = string
  default     = "*/10 * * * *"
  nullable    = false

  validation {
    condition     = can(regex("^(@[a-z]+|[^\\s=]+(\\s+[^\\s=]+){4})$", var.reaper_schedule))
    error_message = "reaper_schedule has cron's five fields, without CRON_TZ or TZ, which Kubernetes refuses."
  }
}

variable "dispatch_every" {
  description = "The time between two dispatch cycles, such as 15s (mode \"run\")."
  type        = string
  default     = "15s"
  nullable    = false

  validation {
    condition     = can(regex("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.dispatch_every)) && can(regex("[1-9]", var.dispatch_every))
    error_message = "dispatch_every is a duration above zero, such as 45s, 30m, 1h30m or 2d."
  }
}

variable "reap_every" {
  description = "The time between two reap cycles, such as 10m (mode \"run\")."
  type        = string
  default     = "10m"
  nullable    = false

  validation {
    condition     = can(regex("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.reap_every)) && can(regex("[1-9]", var.reap_every))
    error_message = "reap_every is a duration above zero, such as 45s, 30m, 1h30m or 2d."
  }
}

variable "threshold" {
  description = "How long a bead in progress may go without an update before it counts as stalled, such as 30m."
  type        = string
  default     = "30m"
  nullable    = false

  validation {
    condition     = can(regex("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.threshold)) && can(regex("[1-9]", var.threshold))
    error_message = "threshold is a duration above zero, such as 45s, 30m, 1h30m or 2d."
  }
}

variable "replicas" {
  description = "How many `bdauto run` there are (mode \"run\"). More than one is safe: claims exclude each other in the database."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.replicas >= 0 && floor(var.replicas) == var.replicas
    error_message = "replicas is a whole number, not below 0."
  }
}

variable "wait_for_rollout" {
  description = "Whether an apply waits until the Deployment is ready, that is, until bd and what starts the agents answered (mode \"run\")."
  type        = bool
  default     = true
  nullable    = false
}

variable "beadboard_url" {
  description = "Where BeadBoard answers, such as http://beadboard.beadboard.svc.cluster.local. Without it bdauto posts each bead to the agent service itself."
  type        = string
  default     = null

  validation {
    condition     = var.beadboard_url == null ? true : can(regex("^https?://[^@\\s]+$", var.beadboard_url))
    error_message = "beadboard_url is an http or https URL without a user and password. Leave it out, or null, without BeadBoard."
  }
}

variable "agent_url" {
  description = "Where the agent service answers. With it bdauto knows the free capacity, and the reaper asks for each job. It needs the Secret."
  type        = string
  default     = null

  validation {
    condition     = var.agent_url == null ? true : can(regex("^https?://[^@\\s]+$", var.agent_url))
    error_message = "agent_url is an http or https URL without a user and password. Leave it out, or null, without an agent service."
  }
}

variable "agent_name" {
  description = "Which of the agent service's agents starts, without beadboard_url. Null leaves it to bdauto: beads-task-runner."
  type        = string
  default     = null

  validation {
    condition     = var.agent_name == null ? true : can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]*$", var.agent_name))
    error_message = "agent_name has letters, digits and . _ - only."
  }
}

variable "kubernetes" {
  description = "One Kubernetes Job for each bead (docs/kubernetes.md), in place of beadboard_url and agent_url: { image = \"registry.example/agent:1\" }."
  type = object({
    image         = string               # the agent's
    copy_bdauto   = optional(bool, true) # brings bdauto, its Python and bd into its pod; false: the image has them
    command       = optional(list(string), ["claude", "-p", "--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"])
    secret_name   = optional(string, "agent-key") # each key of it is a variable of the agent, such as ANTHROPIC_API_KEY
    slots         = optional(number, 4)           # Jobs at a time
    timeout       = optional(string, "45m")       # of an agent
    queue         = optional(string, "")          # Kueue's LocalQueue, if there is one
    scratch       = optional(string, "2Gi")       # of /tmp, where the agent works
    node_selector = optional(map(string), {})
    tolerations = optional(list(object({
      key                = optional(string)
      operator           = optional(string)
      value              = optional(string)
      effect             = optional(string)
      toleration_seconds = optional(string)
    })), [])
    requests = optional(map(string), { cpu = "500m", memory = "1Gi", ephemeral-storage = "2Gi" })
    limits   = optional(map(string), { memory = "2Gi" })
  })
  default = null

  validation {
    condition = var.kubernetes == null ? true : (
      var.kubernetes.image != "" && length(var.kubernetes.command) > 0 &&
      var.kubernetes.slots >= 1 && floor(var.kubernetes.slots) == var.kubernetes.slots
    )
    error_message = "kubernetes has an image, a command, and slots as a whole number from 1 on."
  }
  validation {
    condition     = var.kubernetes == null ? true : can(regex("^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.kubernetes.timeout)) && can(regex("[1-9]", var.kubernetes.timeout))
    error_message = "kubernetes.timeout is a duration above zero, such as 45s, 30m, 1h30m or 2d."
  }
}

variable "settings" {
  description = "Further settings, by the names of bdauto's environment variables: { BDAUTO_MAX = \"5\" }. No secrets: these end in a ConfigMap."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([for name in keys(var.settings) : contains([
      # Written by `make docs`.
      # names: begin
      "BDAUTO_ACCEPTANCE",
      "BDAUTO_ACTIVE_HOURS",
      "BDAUTO_AGENT",
      "BDAUTO_AGENT_BASE",
      "BDAUTO_AGENT_CHECK",
      "BDAUTO_AGENT_CHECK_TIMEOUT",
      "BDAUTO_AGENT_COMMAND",
      "BDAUTO_AGENT_DIR",
      "BDAUTO_AGENT_JOBS",
      "BDAUTO_AGENT_KEEP",
      "BDAUTO_AGENT_LAND",
      "BDAUTO_AGENT_LINGER",
      "BDAUTO_AGENT_NAME",
      "BDAUTO_AGENT_PREPARE",
      "BDAUTO_AGENT_PROMPT",
      "BDAUTO_AGENT_REVIEW",
      "BDAUTO_AGENT_SILENCE",
      "BDAUTO_AGENT_SLOTS",
      "BDAUTO_AGENT_TIMEOUT",
      "BDAUTO_AGENT_TOKEN_FILE",
      "BDAUTO_AGENT_URL",
      "BDAUTO_AGENT_WORKTREE",
      "BDAUTO_ASSIGNEE",
      "BDAUTO_BD",
      "BDAUTO_BD_TIMEOUT",
      "BDAUTO_COST_PER_RUN",
      "BDAUTO_DB",
      "BDAUTO_DIGEST_AT",
      "BDAUTO_DISPATCH_EVERY",
      "BDAUTO_EXCLUDE_LABEL",
      "BDAUTO_EXCLUDE_TYPE",
      "BDAUTO_GRACE",
      "BDAUTO_KUBERNETES_CONTEXT",
      "BDAUTO_KUBERNETES_NAMESPACE",
      "BDAUTO_KUBERNETES_TEMPLATE",
      "BDAUTO_LABEL",
      "BDAUTO_LISTEN",
      "BDAUTO_LOG_FORMAT",
      "BDAUTO_MAX",
      "BDAUTO_MAX_ATTEMPTS",
      "BDAUTO_MAX_COST_PER_DAY",
      "BDAUTO_MAX_COST_PER_RUN",
      "BDAUTO_MAX_PER_DAY",
      "BDAUTO_MAX_REAP",
      "BDAUTO_METADATA",
      "BDAUTO_MODEL",
      "BDAUTO_NOTIFY_ON",
      "BDAUTO_ON_STALL",
      "BDAUTO_PENDING_TIMEOUT",
      "BDAUTO_PRIORITY",
      "BDAUTO_PUSHGATEWAY",
      "BDAUTO_PUSHGATEWAY_INSTANCE",
      "BDAUTO_PUSHGATEWAY_NAMESPACE",
      "BDAUTO_REAP_EVERY",
      "BDAUTO_THRESHOLD",
      "BDAUTO_TIMEOUT",
      "BDAUTO_TRIP_AFTER",
      "BDAUTO_TRUSTED_CREATOR",
      "BDAUTO_TYPE",
      "BDAUTO_WATCH",
      # names: end
    ], name)])
    error_message = "settings holds a name that is no variable of bdauto: docs/options.md has them all."
  }
}

variable "dolt_host" {
  description = "The host of the Dolt SQL server that holds the beads."
  type        = string
  nullable    = false
}

variable "dolt_port" {
  description = "The port of the Dolt SQL server."
  type        = number
  default     = 3306
  nullable    = false

  validation {
    condition     = var.dolt_port >= 1 && var.dolt_port <= 65535 && floor(var.dolt_port) == var.dolt_port
    error_message = "dolt_port is a port: 1 to 65535."
  }
}

variable "dolt_cidr" {
  description = "Where the Dolt SQL server is outside of the cluster, such as 10.1.2.3/32: the NetworkPolicy lets that out. Null: inside."
  type        = string
  default     = null

  validation {
    condition     = var.dolt_cidr == null ? true : can(cidrhost(var.dolt_cidr, 0))
    error_message = "dolt_cidr is an address block, such as 10.1.2.3/32."
  }
}

variable "dolt_user" {
  description = "The user on the Dolt SQL server. Its password, if any, is in the Secret."
  type        = string
  default     = "root"
  nullable    = false
}

variable "dolt_database" {
  description = "The database on the Dolt SQL server."
  type        = string
  default     = "beads"
  nullable    = false
}

variable "project_id" {
  description = "The tracker's project_id, if its metadata.json has one."
  type        = string
  default     = null
}

variable "secret_name" {
  description = "An existing Secret with the agent service's token, needed if agent_url is set, and the Dolt user's password, if there is one."
  type        = string
  default     = "beads-agent"
  nullable    = false
}

variable "secret_token_key" {
  description = "The Secret's key of the agent service's token."
  type        = string
  default     = "api-bearer-token"
  nullable    = false
}

variable "secret_dolt_password_key" {
  description = "The Secret's key of the Dolt user's password. It may be missing."
  type        = string
  default     = "dolt-password"
  nullable    = false
}

variable "egress_ports" {
  description = "The ports of other pods that bdauto may reach inside the cluster: BeadBoard, the agent service. That of Dolt is dolt_port."
  type        = list(number)
  default     = [3000, 8080]
  nullable    = false

  # An empty list would open every port.
  validation {
    condition     = length(var.egress_ports) > 0 && alltrue([for port in var.egress_ports : port >= 1 && port <= 65535 && floor(port) == port])
    error_message = "egress_ports names at least one port, from 1 to 65535."
  }
}

variable "egress" {
  description = "Further blocks of addresses that bdauto may reach, with their ports: [{ cidr = \"0.0.0.0/0\", ports = [443] }] for notifications."
  type        = list(object({ cidr = string, ports = list(number) }))
  default     = []
  nullable    = false

  # A rule without ports would open every port.
  validation {
    condition     = alltrue([for rule in var.egress : can(cidrhost(rule.cidr, 0)) && length(rule.ports) > 0])
    error_message = "egress names an address block and at least one port in each rule."
  }
}

variable "config" {
  description = "The text of a configuration file (docs/configuration.md). The other variables go before it. No secrets: it ends in a ConfigMap."
  type        = string
  default     = ""
  nullable    = false
}

variable "secret_notify_urls_key" {
  description = "The Secret's key of the notification URLs, separated by spaces. It may be missing."
  type        = string
  default     = "notify-urls"
  nullable    = false
}
