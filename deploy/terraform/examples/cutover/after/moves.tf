# Where the old stack's resources go. Delete this file and removed.tf once they have been applied.

moved {
  from = kubernetes_cron_job_v1.beads_dispatcher
  to   = module.bdauto.kubernetes_cron_job_v1.this["beads-dispatcher"]
}

moved {
  from = kubernetes_cron_job_v1.beads_reaper
  to   = module.bdauto.kubernetes_cron_job_v1.this["beads-reaper"]
}

import {
  to = module.bdauto.kubernetes_config_map_v1.metadata
  id = "beads-server/beads-metadata"
}
