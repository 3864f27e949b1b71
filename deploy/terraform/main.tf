locals {
  run = var.mode == "run"

  cron_jobs = local.run ? {} : {
    beads-dispatcher = { schedule = var.dispatcher_schedule, command = ["bdauto", "dispatch"] }
    beads-reaper     = { schedule = var.reaper_schedule, command = ["bdauto", "reap", "--threshold", var.threshold] }
  }

  labels = { "app.kubernetes.io/part-of" = "bdauto" }

  metadata_json = jsonencode({
    database         = "dolt"
    backend          = "dolt"
    dolt_mode        = "server"
    dolt_server_host = var.dolt_host
    dolt_server_port = var.dolt_port
    dolt_server_user = var.dolt_user
    dolt_database    = var.dolt_database
  })

  settings = merge(
    { BEADBOARD_URL = var.beadboard_url, BDAUTO_LOG_FORMAT = "json" },
    var.agent_url == null ? {} : { BDAUTO_AGENT_URL = var.agent_url },
    var.settings,
  )

  # On the pods' template, so that a changed setting replaces the running pods.
  config_checksum = sha256(jsonencode([local.metadata_json, local.settings]))

  env = {
    HOME            = "/tmp"
    BDAUTO_METADATA = "/etc/beads-metadata/metadata.json"
  }

  # The environment variable, the Secret's key, and whether the key may be missing.
  secret_env = {
    API_BEARER_TOKEN    = { key = "api-bearer-token", optional = false }
    BEADS_DOLT_PASSWORD = { key = "dolt-password", optional = true }
  }

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
}
