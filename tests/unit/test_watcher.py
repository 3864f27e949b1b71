"""The watcher: each change of the tracker is noticed, and said once."""

import random
from collections.abc import Callable

import pytest

from bdauto.common.errors import BdFailed
from bdauto.domain.settings import RunSettings
from bdauto.loop.watcher import Watcher
from tests.support.fakes import Clock

MANY = 2_000


class Counter:
    """A revision that is a number."""

    def __init__(self) -> None:
        self.value = 0
        self.cut = False

    def read(self) -> str:
        if self.cut:
            self.cut = False
            raise BdFailed("the connection was cut")
        return str(self.value)

    def close(self) -> None:
        pass


class Watch:
    """A watcher on a clock, and the revision that it follows."""

    def __init__(self) -> None:
        self.clock, self.revision = Clock(), Counter()
        self.watcher = Watcher(RunSettings(), lambda: self.revision, self.sleep, self.clock.monotonic, random.Random(1))
        self.watcher.seen()

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds + 0.001)  # else the clock's rounding could stop it

    def look(self) -> None:
        """Read the tracker, as a cycle does."""
        self.watcher.seen()

    def told(self, seconds: float = 5) -> bool:
        """Wait so long at most. Return whether a change was said."""
        until = self.clock.monotonic() + seconds
        while (left := until - self.clock.monotonic()) > 0:
            if self.watcher.wait(left):
                return True
        return False


@pytest.fixture
def watch() -> Watch:
    return Watch()


def during_the_wait(watch: Watch) -> None:
    watch.revision.value += 1


def before_the_last_one_is_looked_at(watch: Watch) -> None:
    watch.revision.value += 1
    assert watch.told()
    watch.revision.value += 1
    watch.look()
    watch.revision.value += 1


def when_the_connection_is_cut(watch: Watch) -> None:
    watch.revision.value += 1
    watch.revision.cut = True


@pytest.mark.parametrize(
    "change", [during_the_wait, before_the_last_one_is_looked_at, when_the_connection_is_cut], ids=lambda c: c.__name__
)
def test_each_of_many_changes_is_noticed(watch: Watch, change: Callable[[Watch], None]) -> None:
    missed = []
    for number in range(MANY):
        change(watch)
        if not watch.told():
            missed.append(number)
        watch.clock.sleep(400)  # so long that watching is tried again after a failure
        watch.look()
    assert missed == []


def test_a_change_is_said_once_until_it_is_looked_at(watch: Watch) -> None:
    watch.revision.value += 1
    assert [watch.told(), watch.told(), watch.told()] == [True, False, False]
    watch.look()
    assert not watch.told(), "nothing has changed since"


def test_where_nothing_changes_nothing_is_said(watch: Watch) -> None:
    for _ in range(MANY):
        assert not watch.told(1)
        watch.look()
