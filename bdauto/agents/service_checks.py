"""What `bdauto doctor` checks of the agent service, and of the clock of any service. Reads only."""

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING

from bdauto.agents.runner_status import Capacity
from bdauto.common.errors import BdautoError, ServiceDrift, ServiceError, TokenRefused
from bdauto.domain.findings import MOST_SKEW, Check, fail, ok, unchecked, warn
from bdauto.domain.values import format_age

if TYPE_CHECKING:
    from bdauto.agents.runner import CheckContext
    from bdauto.agents.service_runner import ServiceRunner

SERVICE_NAME = "agent service"
PROBE_JOB = "bdauto-doctor"
"""A job that no agent service has: asked for, it answers 404 to a token that it accepts."""


def service_checks(services: "ServiceRunner") -> tuple[Capacity | None, list[Check]]:
    """Check the agent service and its token. Also return its capacity, None if it does not answer."""
    try:
        capacity = services.agent_capacity()
    except BdautoError as error:
        return None, [fail(SERVICE_NAME, error), unchecked("token", "the agent service does not answer")]
    return capacity, [ok(SERVICE_NAME, _room(capacity)), _token(services)]


def clock_check(services: "ServiceRunner", service: str, url: str, context: "CheckContext") -> Check:
    """Compare this host's clock with the Date header, which is whole seconds, of an answer."""
    name = f"clock: {service}"
    before = context.now()
    try:
        date = services.http.get(service, url).date
    except ServiceError as error:
        return fail(name, error)
    between = before + (context.now() - before) / 2
    moment = _parse_date(date)
    if moment is None:
        return warn(name, "the answer has no date to compare with")
    skew = abs(moment - between)
    if skew > MOST_SKEW:
        words = f"{format_age(skew)} apart: here it is {between:%H:%M:%S}Z, there {moment:%H:%M:%S}Z"
        return fail(name, ServiceDrift(words), "set the clocks: the reaper goes by ages")
    return ok(name, "agrees within a minute")


def _parse_date(text: str) -> datetime | None:
    """Parse the date of an HTTP answer."""
    from email.utils import parsedate_to_datetime

    with contextlib.suppress(ValueError, OverflowError):
        moment = parsedate_to_datetime(text)
        return moment if moment.tzinfo else None
    return None


def _room(capacity: Capacity) -> str:
    if not capacity.counted:
        return f"answers as expected: {'room' if capacity.free else 'busy'}"
    return f"answers as expected: {capacity.active} of {capacity.total} running, {capacity.queued} queued"


def _token(services: "ServiceRunner") -> Check:
    hint = "give its token in --agent-token-file or API_BEARER_TOKEN"
    try:
        services.job_state(PROBE_JOB)
    except ServiceError as error:
        return fail("token", error, hint if isinstance(error, TokenRefused) else "")
    return ok("token", "accepted")
