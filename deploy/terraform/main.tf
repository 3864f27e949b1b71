locals {
  run = var.mode == "run"

  cron_jobs = local.run ? {} : {
    beads-dispatcher = { schedule = var.dispatcher_schedule, command = ["bdauto", "dispatch"] }
    beads-reaper     = { schedule = var.reaper_schedule, command = ["bdauto", "reap", "--threshold", var.threshold] }
  }

  own_labels = { "app.kubernetes.io/part-of" = "bdauto" }
  labels     = merge(var.labels, local.own_labels)

  metadata_json = jsonencode(merge(
    {
      database         = "dolt"
      backend          = "dolt"
      dolt_mode        = "server"
      dolt_server_host = var.dolt_host
      dolt_server_port = var.dolt_port
      dolt_server_user = var.dolt_user
      dolt_database    = var.dolt_database
    },
    var.project_id == null ? {} : { project_id = var.project_id },
  ))

  settings = merge(
    { BDAUTO_LOG_FORMAT = "json", BDAUTO_PUSHGATEWAY_INSTANCE = "bdauto" },
    var.beadboard_url == null ? {} : { BEADBOARD_URL = var.beadboard_url },
    var.agent_url == null ? {} : { BDAUTO_AGENT_URL = var.agent_url },
    var.agent_name == null ? {} : { BDAUTO_AGENT_NAME = var.agent_name },
    local.job_settings,
    var.settings,
  )

  config = var.config == "" ? "# docs/configuration.md has the keys.\n" : var.config

  # On the pods' template, so that a changed setting replaces the running pods.
  config_checksum = sha256(jsonencode([local.metadata_json, local.settings, local.config]))
  pod_annotations = merge(var.annotations, { "bdauto/config-checksum" = local.config_checksum })

  # Without the agent service there is no use for its token.
  token_folders = var.agent_url == null ? [] : ["/etc/beads-agent"]

  # The folder of each volume in the container.
  mounts = merge(
    { beads-metadata = "/etc/beads-metadata", bdauto-config = "/etc/bdauto", tmp = "/tmp" },
    { for folder in local.token_folders : "agent-token" => folder },
  )

  env = merge(
    {
      HOME            = "/tmp"
      BDAUTO_METADATA = "/etc/beads-metadata/metadata.json"
      BDAUTO_CONFIG   = "/etc/bdauto/config.toml"
    },
    { for folder in local.token_folders : "BDAUTO_AGENT_TOKEN_FILE" => "${folder}/token" },
  )

  user_id = 65532

  # Longer than one HTTP request (30s) and bd's writes around it, so that a bead in hand is finished.
  grace_seconds = 120

  metrics_port = 9464
}

resource "kubernetes_config_map_v1" "metadata" {
  metadata {
    name      = "beads-metadata"
    namespace = var.namespace
    labels    = local.labels
  }

  data = { "metadata.json" = local.metadata_json }
}

resource "kubernetes_config_map_v1" "settings" {
  metadata {
    name      = "bdauto-settings"
    namespace = var.namespace
    labels    = local.labels
  }

  data = local.settings

  lifecycle {
    precondition {
      condition     = var.beadboard_url != null || var.agent_url != null || var.kubernetes != null || var.config != ""
      error_message = "Nothing runs the agent: give beadboard_url, or agent_url for the agent service without BeadBoard, or kubernetes."
    }
    precondition {
      condition     = var.kubernetes == null || (var.beadboard_url == null && var.agent_url == null)
      error_message = "kubernetes excludes beadboard_url and agent_url."
    }
    precondition {
      condition     = var.beadboard_url == null || var.agent_name == null
      error_message = "agent_name has no effect with beadboard_url: BeadBoard names the agent."
    }
  }
}

resource "kubernetes_config_map_v1" "config" {
  metadata {
    name      = "bdauto-config"
    namespace = var.namespace
    labels    = local.labels
  }

  data = { "config.toml" = local.config }
}

# A warning, not a refusal: some who build their image themselves follow latest on purpose.
check "image_is_pinned" {
  assert {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image)) || (can(regex(":[^/:]+$", var.image)) && !endswith(var.image, ":latest"))
    error_message = "The image ${var.image} names no fixed version: a new one is taken up unseen. Name a tag other than latest, or a digest."
  }
}
