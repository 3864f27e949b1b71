"""One Kubernetes Job for each bead: bdauto copies a Job from a suspended CronJob, its template, and watches it."""
