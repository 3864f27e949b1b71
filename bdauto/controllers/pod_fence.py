"""The fence of a pod: of all the pods that Kubernetes may start for one attempt, one starts the agent.

Kubernetes says that a Job may start its program twice. So the pod compares and sets its uid on the bead first.
"""

from datetime import timedelta

from bdauto.bd.change import Writer, mark_of, rewrite
from bdauto.bd.client import Bd
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdError, BdUnsupported
from bdauto.domain.bead import Bead
from bdauto.domain.values import format_duration

PATIENCE = 300.0
"""Seconds to try again while bd fails. The Job waits, and nothing has been started."""
LONGEST_WAIT = 10.0
"""Seconds between two tries, at most."""


def take(bd: Bd, writer: Writer, runtime: Runtime, *, bead_id: str, attempt: str, pod: str) -> Bead | str:
    """Write the pod's uid on the bead of an attempt. Return the bead if it is written, else why no agent may start.

    A uid that is there was written by another pod, or by an earlier container of this one. Raises BdError.
    """
    deadline, wait, tried = runtime.monotonic() + PATIENCE, 0.2, False
    while True:
        try:
            found = bd.read([bead_id]).result().beads
            bead = found[0] if found else None
            if bead is None or bead.status != "in_progress" or bead.record.attempt != attempt:
                return f"{bead_id} is not claimed for attempt {attempt} any more"
            if bead.record.pod:  # after a write without an answer it may be this one
                return bead if tried and bead.record.pod == pod else f"another pod has taken attempt {attempt}"
            tried = True
            change = rewrite(
                bead,
                bead.record.change(pod=pod),
                act="take the attempt of",
                mark=runtime.unique(),
                quiet=True,
                if_status="in_progress",
                if_attempt=attempt,
                if_mark=mark_of(bead),
            )
            if writer.apply([change]) == [True]:
                return bead
        except BdUnsupported:
            raise
        except BdError as error:
            if runtime.monotonic() + wait > deadline:
                raise type(error)(
                    f"{error.message}, for {format_duration(timedelta(seconds=PATIENCE))}", hint=error.hint
                ) from None
        if runtime.monotonic() > deadline:
            return f"{bead_id} changes too often"
        runtime.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT)
