"""Numbers that several rooms share."""

from datetime import timedelta

IN_A_ROW = 3
"""After this many consecutive failures the service is at fault, not the beads or jobs."""
SWAP_TRIES = 8
"""How often a key of the key-value store is read anew and written, if others change it at the same time."""
NAMED = 5
"""How many beads of a kind a message names."""
EXPORT_DELAY = timedelta(minutes=2)
"""BeadBoard may read an export that is up to a minute old: a bead created so lately may not be in it."""
STARVED_INTERVALS = 3
"""The queue starves after this many intervals with work and room but nothing dispatched."""
STARVED_AFTER = STARVED_INTERVALS * timedelta(minutes=2)
"""The same for whoever does not know the interval: that of the CronJob counts."""
