# Terraform 1.7 and later. With an earlier one delete this file and run
# `terraform state rm kubernetes_config_map.beads_metadata`.
#
# kubernetes_config_map and kubernetes_config_map_v1 are two types, and nothing can be moved from one to the other. So the old
# resource is forgotten, and moves.tf imports the object that it leaves in the cluster.

removed {
  from = kubernetes_config_map.beads_metadata

  lifecycle {
    destroy = false
  }
}
