"""`bdauto run`."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Annotated

from bdauto.agents.kinds import AgentSettings, Kind
from bdauto.bd.tracker import tracker_of
from bdauto.cli import streams
from bdauto.cli.context import LazyRunner, opened, wait_for_jobs, writer
from bdauto.cli.lane_settings import LaneSettings, PerLane, begin
from bdauto.cli.options import Part, with_options
from bdauto.cli.output_settings import OutputSettings
from bdauto.cli.printing import show
from bdauto.cli.running_loops import lane_of, published
from bdauto.cli.validation import need
from bdauto.common import log
from bdauto.common.clock import Runtime
from bdauto.common.errors import BdautoError, BdError, UsageError
from bdauto.common.extras import EXTRAS, advice, missing
from bdauto.domain.settings import BdSettings, DispatchSettings, ReapSettings, RunSettings, TelemetrySettings

if TYPE_CHECKING:
    from bdauto.cli.run_screen import Screen
    from bdauto.loop.listener import Page
    from bdauto.loop.loop import Loop
    from bdauto.loop.loop_context import Lane
    from bdauto.loop.shutdown import Stop
    from bdauto.web.site import Site


@with_options
def run(
    loop: RunSettings,
    lanes: Annotated[PerLane, Part(AgentSettings), Part(DispatchSettings), Part(ReapSettings), Part(BdSettings)],
    telemetry: TelemetrySettings,
    output: OutputSettings,
) -> None:
    """Dispatch and reap in one process until SIGTERM or SIGINT. --json reports each cycle that touched a bead."""
    kinds = [lanes.required(lane) for lane in lanes.serves]
    if loop.listen:
        need("metrics", "--listen")
    from bdauto.loop.loop import Loop
    from bdauto.loop.shutdown import Stop
    from bdauto.telemetry import notify
    from bdauto.telemetry.recorder import Telemetry

    if unknown := notify.unknown(telemetry.notify_urls):
        raise UsageError(unknown)
    served = [
        (lane, LazyRunner(kind, lane.agent, lane.bd, lanes.view(lane)))
        for lane, kind in zip(lanes.serves, kinds, strict=True)
    ]
    for lane, runner in served:
        with suppress(BdError), lanes.naming(lane):  # the loop waits for the end of an outage
            runner().check_start(dry_run=lane.dispatch.dry_run)  # reports at once what can never work
    parts = [
        (lane.bd, kind.part(lane.agent), lane.dispatch, lane.reap)
        for lane, kind in zip(lanes.serves, kinds, strict=True)
    ]
    counting = bool(loop.listen or telemetry.pushgateway)
    runtime = Runtime()
    told = (lambda report: show(report, True)) if output.json else None
    names = [lane.name for lane in lanes.serves] if lanes.several else []
    recorder = Telemetry(telemetry, "dispatch", "reap", counting=counting, show=told, lanes=names)
    streams.drop_when_stuck()
    with ExitStack() as stack:
        screen = stack.enter_context(_screen(output))
        begin("run", output, lanes, parts, loop, telemetry, screen=screen)
        if not any(lane.dispatch.dry_run for lane in lanes.serves):
            known = [lane_of(tracker_of(one.bd), one.bd, lanes.name(one), one.agent) for one in lanes.serves]
            stack.enter_context(published(known))
        stop = stack.enter_context(Stop())
        found = _lanes(stack, lanes, served, loop, runtime, stop)
        write, watcher = found[0].writer, found[0].watcher
        assert write is not None
        assert watcher is not None
        show_queue = screen.show_queue if screen else None
        work = Loop(found, write, loop, runtime, stop, recorder, watcher, counting, show_queue)
        if screen:
            screen.next_look = work.next_look
        if loop.listen:
            stack.enter_context(_listening(loop.listen, work, _site(stack, lanes, kinds, runtime)))
        work.run()
        wait_for_jobs([runner for _, runner in served], runtime)
        recorder.close()
        log.event("end", outcome="stopped", signal=stop.signal)
        if screen:
            screen.goodbye({bead for _, runner in served for bead in _at_work(runner, screen.running)})


@contextmanager
def _screen(output: OutputSettings) -> "Iterator[Screen | None]":
    """Yield the screen, None if stderr is no terminal, or is to have a log. Only a terminal pays for it."""
    if not sys.stderr.isatty() or output.log_format or output.json:
        yield None
        return
    from rich.console import Console

    from bdauto.cli.run_screen import Screen

    with Screen(Console(stderr=True, highlight=False, emoji=False, markup=False), verbose=output.verbose) as screen:
        yield screen


def _at_work(runner: LazyRunner, known: Collection[str]) -> Collection[str]:
    """Return the beads whose jobs go on: those on this machine, or those that are known if a service runs them."""
    with suppress(BdautoError):
        if runner().place():
            return {running.bead for running in runner().running_jobs()}
    return known


def _lanes(
    stack: ExitStack,
    lanes: PerLane,
    served: "Sequence[tuple[LaneSettings, LazyRunner]]",
    loop: RunSettings,
    runtime: Runtime,
    stop: "Stop",
) -> "list[Lane]":
    """Open the lanes. Those of one tracker share a watcher."""
    from bdauto.bd.revision import open_revision
    from bdauto.loop.loop_context import Lane
    from bdauto.loop.watcher import Watcher

    watchers: dict[str, Watcher] = {}
    found: list[Lane] = []
    for lane, runner in served:
        bd = stack.enter_context(opened(lane.bd, lanes.view(lane), readonly=lane.dispatch.dry_run))
        watcher = watchers.setdefault(
            tracker_of(lane.bd),
            Watcher(loop, partial(open_revision, bd), stop.wait, runtime.monotonic, runtime.rng),
        )
        write = partial(writer, bd, runtime, lane.dispatch.dry_run)
        found.append(Lane(bd, runner, lane.dispatch, lane.reap, write, watcher))
    return found


def _site(stack: ExitStack, lanes: PerLane, kinds: "Sequence[Kind]", runtime: Runtime) -> "Callable[[], Site] | None":
    """Return what makes the pages of all lanes, or None where they cannot be made."""
    if missing("web"):
        return None
    readers = [stack.enter_context(lanes.opened(lane)) for lane in lanes.serves]

    def site() -> "Site":
        from bdauto.web.site import LaneReader, Site

        found = {}
        for lane, bd, kind in zip(lanes.serves, readers, kinds, strict=True):
            runner = LazyRunner(kind, lane.agent, lane.bd, lanes.view(lane))  # the loop's own belongs to its thread
            found[lanes.name(lane)] = LaneReader(bd, runner, lane.dispatch, lane.reap)
        board = next((lane.agent.beadboard_url for lane in lanes.serves if lane.agent.beadboard_url), "")
        return Site(found, lambda bead: lanes.name(lanes.of_bead(bead)), runtime, board)

    return _once(site)


def _once(make: "Callable[[], Site]") -> "Callable[[], Site]":
    """Return what makes the site for its first reader, whichever thread that is: it takes memory."""
    lock, made = Lock(), cache(make)

    def once() -> "Site":
        with lock:
            return made()

    return once


@contextmanager
def _listening(address: tuple[str, int], loop: "Loop", site: "Callable[[], Site] | None") -> Iterator[None]:
    from bdauto.loop.listener import Listener

    others = _no_page if site is None else partial(_page, site)
    listener = Listener(address, _pages(loop), others)
    log.event("listening", address=listener.address)
    try:
        yield
    finally:
        listener.close()


def _no_page(path: str, _query: str) -> "Page | None":
    """Say why there is no page, where there would be one."""
    from bdauto.loop.listener import Page

    if path.split("/")[1] not in ("", "beads", "runs", "api"):
        return None
    words = f"no page here: {' and '.join(EXTRAS['web'])} are not installed in bdauto's environment; {advice('web')}"
    return Page(404, f"{words}\n".encode())


def _page(site: "Callable[[], Site]", path: str, query: str) -> "Page | None":
    from bdauto.loop.listener import Page
    from bdauto.web.routes import answer

    found = answer(site, path, query)
    return None if found is None else Page(found.status, found.body, found.content_type, found.headers, found.chunks)


def _pages(loop: "Loop") -> dict[str, "Callable[[], Page]"]:
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    from bdauto.loop.listener import Page

    assert loop.telemetry.metrics, "the listener is given only where metrics are counted"
    registry = loop.telemetry.metrics.registry

    def said(good: bool, yes: bytes, no: bytes) -> Page:
        return Page(200, yes) if good else Page(503, no)

    return {
        "/healthz": lambda: said(loop.alive(), b"alive\n", b"the loop is stalled\n"),
        "/readyz": lambda: said(
            loop.ready(),
            b"ready\n" + loop.known().encode(),
            loop.trouble().encode() + loop.known().encode(),
        ),
        "/metrics": lambda: Page(200, generate_latest(registry), CONTENT_TYPE_LATEST),
    }
