"""What `bdauto doctor` looks at where metrics and notifications go, and the extras. It pushes and sends nothing."""

from collections.abc import Iterator

from bdauto.cli.validation import check_telemetry
from bdauto.common.errors import ServiceDown, UsageError
from bdauto.common.extras import EXTRAS, advice, missing
from bdauto.domain.findings import Check, fail, ok, warn
from bdauto.domain.settings import TelemetrySettings


def telemetry_checks(settings: TelemetrySettings) -> Iterator[Check]:
    """Check what is configured: the Pushgateway's answer, and the notification URLs."""
    try:
        check_telemetry(settings)
    except UsageError as error:
        yield fail("telemetry", error)
        return
    if settings.pushgateway:
        from bdauto.telemetry.export import Pushgateway

        trouble = Pushgateway(settings.pushgateway, "dispatch").trouble()
        if trouble:
            yield fail("Pushgateway", ServiceDown(trouble), "is its URL in --pushgateway right?")
        else:
            yield ok("Pushgateway", "answers")
    if settings.notify_urls:
        from bdauto.telemetry import notify

        if unknown := notify.unknown(settings.notify_urls):
            yield fail("notifications", UsageError(unknown), "write it as Apprise documents it")
        else:
            schemes = ", ".join(notify.scheme(url) for url in settings.notify_urls)
            yield ok("notifications", f"Apprise understands {schemes}; nothing was sent")


def extras_checks() -> Iterator[Check]:
    """Say which extras are installed."""
    for extra in EXTRAS:
        if missing(extra):
            yield warn(f"extra {extra}", "not installed", f"if you want it, {advice(extra)}")
        else:
            yield ok(f"extra {extra}", "installed")
