"""A `bdauto run` that runs: its log can be waited on, its pages can be asked for."""

import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bdauto.sandbox import Sandbox
from tests.support.cli import Done, start
from tests.support.patience import seconds

FAST = ("--dispatch-every", "100ms", "--reap-every", "1h", "--watch", "off", "--log-format", "json")


class Loop:
    """A running `bdauto run`, whose log can be waited on."""

    def __init__(
        self, sandbox: Sandbox, *args: str, agent: bool = False, inside: Sequence[str] = (), **env: str
    ) -> None:
        self.sandbox = sandbox
        self.process = start(sandbox, "run", *FAST, *args, agent=agent, inside=inside, **env)
        self.events: list[dict[str, Any]] = []
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for raw in self.process.stderr:
            line = raw.decode()
            with self._changed:
                self._lines.append(line)
                if line.startswith("{"):
                    self.events.append(json.loads(line))
                self._changed.notify_all()

    def wait(self, name: str, count: int = 1, timeout: float = seconds(60), **fields: Any) -> dict[str, Any]:
        """Wait for the so-manieth event with this name and these fields."""

        def found() -> list[dict[str, Any]]:
            return [e for e in self.events if e["event"] == name and fields.items() <= e.items()]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, timeout), (name, fields, self._lines)
            return found()[count - 1]

    def named(self, *names: str) -> list[str]:
        return [event["event"] for event in self.events if event["event"] in names]

    def stop(self, number: int = signal.SIGTERM, timeout: float = seconds(60)) -> Done:
        self.process.send_signal(number)
        return self.finish(timeout)

    def finish(self, timeout: float = seconds(60)) -> Done:
        try:
            self.process.wait(timeout)
        finally:
            self.process.kill()
            self._reader.join(timeout)
        assert self.process.stdout
        done = Done(self.process.returncode, self.process.stdout.read().decode(), "".join(self._lines))
        assert "Traceback" not in done.err, done.err
        assert self.sandbox.token not in done.out + done.err
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()
        return done

    def get(self, path: str) -> tuple[int, str]:
        address = self.wait("listening")["address"]
        return request(f"http://{address}{path}")


def request(url: str, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=seconds(30)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Parse a metrics page with prometheus_client's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(page: str, name: str, **labels: str) -> float:
    return samples(page)[name, tuple(sorted(labels.items()))]


Start = Callable[..., Loop]


@pytest.fixture
def begin() -> Iterator[Start]:
    """Starts loops, in any sandbox; those that a test leaves are killed."""
    loops: list[Loop] = []

    def made(sandbox: Sandbox, *args: str, **more: Any) -> Loop:
        loops.append(Loop(sandbox, *args, **more))
        return loops[-1]

    yield made
    for each in loops:
        if each.process.poll() is None:
            each.process.kill()
            each.finish()


@pytest.fixture
def loop(sandbox: Sandbox, begin: Start) -> Start:
    """Starts loops in the sandbox."""
    return partial(begin, sandbox)
