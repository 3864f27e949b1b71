output "enabled" {
  description = "Whether anything is dispatched or reaped: the kill switch as applied."
  value       = var.beads_dispatcher_enabled
}

output "workloads" {
  description = "What was created, as kubectl names it, such as cronjob/beads-dispatcher."
  value = concat(
    [for name in sort(keys(kubernetes_cron_job_v1.this)) : "cronjob/${name}"],
    [for deployment in kubernetes_deployment_v1.run : "deployment/${deployment.metadata[0].name}"],
  )
}

output "namespace" {
  description = "The namespace of all objects."
  value       = var.namespace
}

output "metrics_address" {
  description = "Where Prometheus finds the metrics in mode \"run\", else null."
  value       = local.run ? "bdauto.${var.namespace}.svc:${local.metrics_port}" : null
}

output "page_address" {
  description = "Where the page is in mode \"run\", else null."
  value       = local.run ? "bdauto-page.${var.namespace}.svc" : null
}
