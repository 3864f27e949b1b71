output "workloads" {
  description = "What was created."
  value       = module.bdauto.workloads
}

output "enabled" {
  description = "The kill switch as applied."
  value       = module.bdauto.enabled
}
