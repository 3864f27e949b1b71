# `terraform test` with a mocked provider: needs Terraform 1.7 or later, and no cluster. The module itself needs 1.5.

mock_provider "kubernetes" {}

variables {
  image         = "registry.example/bdauto:0.1.0"
  beadboard_url = "http://beadboard.example"
  dolt_host     = "dolt.example"
}

run "two_cron_jobs_by_default" {
  command = apply

  assert {
    condition     = toset(keys(kubernetes_cron_job_v1.this)) == toset(["beads-dispatcher", "beads-reaper"])
    error_message = "The default is the two CronJobs."
  }
  assert {
    condition     = alltrue([for job in kubernetes_cron_job_v1.this : job.spec[0].suspend == false])
    error_message = "The default is not suspended."
  }
  assert {
    condition = (
      kubernetes_cron_job_v1.this["beads-dispatcher"].spec[0].schedule == "*/2 * * * *" &&
      kubernetes_cron_job_v1.this["beads-reaper"].spec[0].schedule == "*/10 * * * *"
    )
    error_message = "Dispatch every 2 minutes, reap every 10."
  }
  assert {
    condition = alltrue([for job in kubernetes_cron_job_v1.this : (
      job.spec[0].concurrency_policy == "Forbid" &&
      job.spec[0].starting_deadline_seconds == 60 &&
      job.spec[0].successful_jobs_history_limit == 3 &&
      job.spec[0].failed_jobs_history_limit == 3 &&
      job.spec[0].job_template[0].spec[0].backoff_limit == 0 &&
      job.spec[0].job_template[0].spec[0].ttl_seconds_after_finished == "600" &&
      job.spec[0].job_template[0].spec[0].template[0].spec[0].restart_policy == "Never"
    )])
    error_message = "Both CronJobs never overlap, start within a minute or not at all, and never try again."
  }
  assert {
    condition     = jsondecode(kubernetes_config_map_v1.metadata.data["metadata.json"]).dolt_server_host == "dolt.example"
    error_message = "metadata.json names the Dolt server."
  }
  assert {
    condition = alltrue([for job in kubernetes_cron_job_v1.this : toset([
      for mount in job.spec[0].job_template[0].spec[0].template[0].spec[0].container[0].volume_mount :
      "${mount.name} ${mount.mount_path} ${mount.read_only}"
    ]) == toset(["bdauto-config /etc/bdauto true", "beads-metadata /etc/beads-metadata true", "tmp /tmp false"])])
    error_message = "Without the agent service no token is mounted, and only /tmp is written."
  }
  assert {
    condition     = output.workloads == ["cronjob/beads-dispatcher", "cronjob/beads-reaper"] && output.metrics_address == null
    error_message = "The outputs name the two CronJobs."
  }
}

run "kill_switch_suspends_both" {
  command = apply

  variables {
    beads_dispatcher_enabled = false
  }

  assert {
    condition     = length(kubernetes_cron_job_v1.this) == 2 && alltrue([for job in kubernetes_cron_job_v1.this : job.spec[0].suspend])
    error_message = "Both CronJobs stay and are suspended."
  }
  assert {
    condition     = output.enabled == false
    error_message = "The output tells it."
  }
}

run "threshold_reaches_the_command_line" {
  command = plan

  variables {
    threshold = "45m"
  }

  assert {
    condition = (
      kubernetes_cron_job_v1.this["beads-reaper"].spec[0].job_template[0].spec[0].template[0].spec[0].container[0].command ==
      tolist(["bdauto", "reap", "--threshold", "45m"])
    )
    error_message = "The reaper is told the threshold."
  }
}

run "one_deployment_instead" {
  command = apply

  variables {
    mode     = "run"
    settings = { BDAUTO_MAX = "5" }
  }

  assert {
    condition     = length(kubernetes_cron_job_v1.this) == 0 && length(kubernetes_deployment_v1.run) == 1
    error_message = "The Deployment replaces the CronJobs."
  }
  assert {
    condition     = length(kubernetes_service_v1.metrics) == 1
    error_message = "The Service comes with it."
  }
  assert {
    condition     = kubernetes_config_map_v1.settings.data["BDAUTO_MAX"] == "5"
    error_message = "Further settings reach the ConfigMap."
  }
  assert {
    condition     = output.workloads == ["deployment/bdauto"] && output.metrics_address == "bdauto.beads-server.svc:9464"
    error_message = "The outputs name the Deployment and where its metrics are."
  }
}

run "kill_switch_scales_to_zero" {
  command = plan

  variables {
    mode                     = "run"
    beads_dispatcher_enabled = false
  }

  assert {
    condition     = tonumber(kubernetes_deployment_v1.run[0].spec[0].replicas) == 0
    error_message = "No replica is left."
  }
}

run "an_image_without_a_tag_is_a_warning" {
  command = plan

  variables {
    image = "registry.example:5000/bdauto"
  }

  expect_failures = [check.image_is_pinned]
}

run "the_tag_latest_is_a_warning" {
  command = plan

  variables {
    image = "registry.example:5000/bdauto:latest"
  }

  expect_failures = [check.image_is_pinned]
}

run "a_digest_is_pinned_whatever_the_tag" {
  command = plan

  variables {
    image = "registry.example/bdauto:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  }
}

run "an_unknown_pull_policy_is_refused" {
  command = plan

  variables {
    image_pull_policy = "Sometimes"
  }

  expect_failures = [var.image_pull_policy]
}

run "without_the_agent_service_no_secret_is_asked_for" {
  command = plan

  assert {
    condition = alltrue([for pod in [for job in kubernetes_cron_job_v1.this : job.spec[0].job_template[0].spec[0].template[0].spec[0]] :
      !contains([for volume in pod.volume : volume.name], "agent-token") &&
      !contains([for env in pod.container[0].env : env.name], "BDAUTO_AGENT_TOKEN_FILE")
    ])
    error_message = "The token has no use."
  }
}

run "with_the_agent_service_its_token_is_a_file" {
  command = plan

  variables {
    agent_url        = "http://agent.example"
    secret_name      = "beadboard-agent-service"
    secret_token_key = "api_bearer_token"
  }

  assert {
    condition = alltrue(flatten([for job in kubernetes_cron_job_v1.this : [
      for volume in job.spec[0].job_template[0].spec[0].template[0].spec[0].volume : (
        volume.secret[0].secret_name == "beadboard-agent-service" && volume.secret[0].items[0].key == "api_bearer_token"
      ) if volume.name == "agent-token"
    ]]))
    error_message = "The Secret and its key are the ones named."
  }
  assert {
    condition = flatten([for job in kubernetes_cron_job_v1.this : [
      for env in job.spec[0].job_template[0].spec[0].template[0].spec[0].container[0].env : env.value if env.name == "BDAUTO_AGENT_TOKEN_FILE"
    ]]) == ["/etc/beads-agent/token", "/etc/beads-agent/token"]
    error_message = "bdauto is told where the token is."
  }
}

run "pods_are_placed_and_labelled_as_asked" {
  command = plan

  variables {
    labels            = { team = "tools", "app.kubernetes.io/part-of" = "something-else" }
    annotations       = { "example.com/note" = "hello" }
    requests          = { cpu = "10m" }
    limits            = { memory = "512Mi" }
    node_selector     = { "kubernetes.io/arch" = "arm64" }
    tolerations       = [{ key = "dedicated", operator = "Exists", effect = "NoSchedule" }]
    image_pull_policy = "Always"
    project_id        = "a-project"
  }

  assert {
    condition = alltrue([for template in [for job in kubernetes_cron_job_v1.this : job.spec[0].job_template[0].spec[0].template[0]] : (
      template.metadata[0].labels["team"] == "tools" &&
      template.metadata[0].labels["app.kubernetes.io/part-of"] == "bdauto" &&
      template.metadata[0].annotations["example.com/note"] == "hello" &&
      template.spec[0].node_selector["kubernetes.io/arch"] == "arm64" &&
      template.spec[0].toleration[0].key == "dedicated" &&
      template.spec[0].container[0].image_pull_policy == "Always" &&
      template.spec[0].container[0].resources[0].requests["cpu"] == "10m" &&
      template.spec[0].container[0].resources[0].limits["memory"] == "512Mi"
    )])
    error_message = "Labels, annotations, placement, resources and pull policy reach the pods."
  }
  assert {
    condition     = jsondecode(kubernetes_config_map_v1.metadata.data["metadata.json"]).project_id == "a-project"
    error_message = "metadata.json has the project_id."
  }
}

run "an_unknown_mode_is_refused" {
  command = plan

  variables {
    mode = "daemon"
  }

  expect_failures = [var.mode]
}

run "a_threshold_that_is_no_duration_is_refused" {
  command = plan

  variables {
    threshold = "30"
  }

  expect_failures = [var.threshold]
}

run "numbers_durations_and_urls_are_checked" {
  command = plan

  variables {
    dispatch_every = "15"
    reap_every     = ""
    agent_url      = ""
    dolt_port      = 3306.5
    replicas       = -1
    egress_ports   = []
  }

  expect_failures = [
    var.dispatch_every, var.reap_every, var.agent_url, var.dolt_port, var.replicas, var.egress_ports,
  ]
}

run "null_is_the_default" {
  command = plan

  variables {
    mode                = null
    namespace           = null
    dispatcher_schedule = null
    image_pull_secrets  = null
    settings            = null
    secret_name         = null
    egress_ports        = null
  }

  assert {
    condition     = kubernetes_cron_job_v1.this["beads-dispatcher"].spec[0].schedule == "*/2 * * * *"
    error_message = "A root module may hand on a variable of its own that is null."
  }
}

run "no_container_may_be_root" {
  command = plan

  assert {
    condition = alltrue([for job in kubernetes_cron_job_v1.this :
      job.spec[0].job_template[0].spec[0].template[0].spec[0].container[0].security_context[0].run_as_non_root
    ])
    error_message = "The container must say so itself: the provider's default would override the pod's."
  }
}

run "agent_service_without_beadboard" {
  command = apply

  variables {
    beadboard_url = null
    agent_url     = "http://agent.example"
    agent_name    = "reviewer"
  }

  assert {
    condition = (
      kubernetes_config_map_v1.settings.data["BDAUTO_AGENT_URL"] == "http://agent.example" &&
      kubernetes_config_map_v1.settings.data["BDAUTO_AGENT_NAME"] == "reviewer" &&
      !contains(keys(kubernetes_config_map_v1.settings.data), "BEADBOARD_URL")
    )
    error_message = "bdauto posts to the agent service itself."
  }
  assert {
    condition = alltrue([for job in kubernetes_cron_job_v1.this : contains([
      for mount in job.spec[0].job_template[0].spec[0].template[0].spec[0].container[0].volume_mount : mount.name
    ], "agent-token")])
    error_message = "The token is mounted."
  }
}

run "a_job_for_each_bead" {
  command = apply

  variables {
    beadboard_url = null
    dolt_port     = 3307
    dolt_cidr     = "10.1.2.3/32"
    labels        = { team = "tools", "app.kubernetes.io/part-of" = "bdauto" }
    annotations   = { "example.com/note" = "hello" }
    kubernetes = {
      image       = "agent.example:1"
      slots       = 2
      queue       = "agents"
      tolerations = [{ key = "dedicated", operator = "Exists" }]
    }
  }

  assert {
    condition = alltrue([for template in [kubernetes_cron_job_v1.agent[0].spec[0].job_template[0].spec[0].template[0]] : (
      template.metadata[0].labels == tomap({ team = "tools", "app.kubernetes.io/name" = "bdauto-agent" }) &&
      template.metadata[0].annotations["example.com/note"] == "hello" &&
      template.spec[0].toleration[0].key == "dedicated"
    )])
    error_message = "Labels, annotations and tolerations reach the agent's pod, which is not under bdauto's NetworkPolicy."
  }

  assert {
    condition = (
      kubernetes_config_map_v1.settings.data["BDAUTO_KUBERNETES_TEMPLATE"] == kubernetes_cron_job_v1.agent[0].metadata[0].name &&
      kubernetes_config_map_v1.settings.data["BDAUTO_AGENT_SLOTS"] == "2" &&
      kubernetes_config_map_v1.settings.data["BDAUTO_AGENT_TIMEOUT"] == "45m"
    )
    error_message = "bdauto is told of the template, the slots and the time limit."
  }
  assert {
    condition     = kubernetes_cron_job_v1.agent[0].spec[0].suspend
    error_message = "The template is never run by its schedule."
  }
  assert {
    condition = alltrue([for pod in [kubernetes_cron_job_v1.agent[0].spec[0].job_template[0].spec[0].template[0].spec[0]] : (
      !pod.automount_service_account_token &&
      pod.container[0].image == "agent.example:1" &&
      slice(pod.container[0].command, 0, 4) == tolist(["/opt/bdauto/bin/bdauto", "agent-entry", "--", "claude"]) &&
      pod.init_container[0].image == var.image &&
      pod.container[0].env_from[0].secret_ref[0].name == "agent-key"
    )])
    error_message = "The agent has its image, its command and its Secret, and no rights."
  }
  assert {
    condition     = kubernetes_cron_job_v1.agent[0].spec[0].job_template[0].metadata[0].labels["kueue.x-k8s.io/queue-name"] == "agents"
    error_message = "Kueue's label is on the Job."
  }
  assert {
    condition = alltrue([for pod in [for job in kubernetes_cron_job_v1.this : job.spec[0].job_template[0].spec[0].template[0].spec[0]] :
      pod.service_account_name == "bdauto" && pod.automount_service_account_token
    ])
    error_message = "bdauto's own pods have the rights."
  }
  assert {
    condition = anytrue([for rule in kubernetes_network_policy_v1.agent[0].spec[0].egress :
      rule.ports[0].port == "3307" && try(rule.to[0].ip_block[0].cidr, "") == "10.1.2.3/32"
    ])
    error_message = "The agent's bd may reach a Dolt server outside of the cluster."
  }
  assert {
    condition     = anytrue([for rule in kubernetes_network_policy_v1.this.spec[0].egress : rule.ports[*].port == tolist(["443", "6443"])])
    error_message = "bdauto may reach the Kubernetes API."
  }
}

run "an_image_that_has_bdauto_gets_no_copy" {
  command = plan

  variables {
    beadboard_url = null
    kubernetes    = { image = "agent.example:1", copy_bdauto = false }
  }

  assert {
    condition = alltrue([for pod in [kubernetes_cron_job_v1.agent[0].spec[0].job_template[0].spec[0].template[0].spec[0]] : (
      pod.container[0].command[0] == "bdauto" && length(pod.init_container) == 0 && length(pod.volume) == 2
    )])
    error_message = "Its own bdauto is started."
  }
}

run "without_jobs_there_are_no_rights" {
  command = plan

  assert {
    condition = (
      length(kubernetes_role_v1.this) == 0 && length(kubernetes_cron_job_v1.agent) == 0 &&
      alltrue([for job in kubernetes_cron_job_v1.this : !job.spec[0].job_template[0].spec[0].template[0].spec[0].automount_service_account_token])
    )
    error_message = "No Role, no template, no token."
  }
}

run "jobs_beside_beadboard_are_refused" {
  command = plan

  variables {
    kubernetes = { image = "agent.example:1" }
  }

  expect_failures = [kubernetes_config_map_v1.settings]
}

run "a_job_for_each_bead_has_checked_values" {
  command = plan

  variables {
    beadboard_url = null
    kubernetes    = { image = "agent.example:1", timeout = "0s", slots = 0 }
  }

  expect_failures = [var.kubernetes]
}

run "nothing_that_runs_the_agent_is_refused" {
  command = plan

  variables {
    beadboard_url = null
  }

  expect_failures = [kubernetes_config_map_v1.settings]
}

run "agent_name_beside_beadboard_is_refused" {
  command = plan

  variables {
    agent_url  = "http://agent.example"
    agent_name = "reviewer"
  }

  expect_failures = [kubernetes_config_map_v1.settings]
}

run "two_replicas_survive_a_drain_and_the_page_has_a_service" {
  command = plan

  variables {
    mode      = "run"
    replicas  = 2
    dolt_port = 3307
    dolt_cidr = "10.1.2.3/32"
    config    = "max = 3\n"
  }

  assert {
    condition     = length(kubernetes_pod_disruption_budget_v1.run) == 1 && length(kubernetes_service_v1.page) == 1
    error_message = "A budget and the page's Service are there."
  }
  assert {
    condition     = kubernetes_config_map_v1.config.data["config.toml"] == "max = 3\n"
    error_message = "The configuration file reaches its ConfigMap."
  }
  assert {
    condition = anytrue([for rule in kubernetes_network_policy_v1.this.spec[0].egress : (
      rule.ports[0].port == "3307" && length(rule.to) == 1 && try(rule.to[0].ip_block[0].cidr, "") == "10.1.2.3/32"
    )])
    error_message = "The NetworkPolicy lets the Dolt server's port out to its address."
  }
}

run "no_interval_of_zero" {
  command         = plan
  expect_failures = [var.dispatch_every]

  variables {
    dispatch_every = "0s"
  }
}

run "no_time_zone_in_a_schedule" {
  command         = plan
  expect_failures = [var.dispatcher_schedule]

  variables {
    dispatcher_schedule = "CRON_TZ=Europe/Sofia */2 * * * *"
  }
}
