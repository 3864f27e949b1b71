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
    condition     = length(kubernetes_service_v1.metrics) == 1 && length(kubernetes_network_policy_v1.run) == 1
    error_message = "The Service and the NetworkPolicy come with it."
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

run "an_image_without_a_tag_is_refused" {
  command = plan

  variables {
    image = "registry.example:5000/bdauto"
  }

  expect_failures = [var.image]
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

run "no_container_may_be_root" {
  command = plan

  assert {
    condition = alltrue([for job in kubernetes_cron_job_v1.this :
      job.spec[0].job_template[0].spec[0].template[0].spec[0].container[0].security_context[0].run_as_non_root
    ])
    error_message = "The container must say so itself: the provider's default would override the pod's."
  }
}
