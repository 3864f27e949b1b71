"""The checks of options' values: each error names the option and what is accepted."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from bdauto import options
from bdauto.errors import UsageError
from bdauto.settings import OnStall, Secret

HERE = Path("/")


def bd(**values: object) -> object:
    plain = {"bd": "bd", "db": None, "metadata": None, "timeout": "60s", "assignee": "agent", "actor": "me"}
    return options.bd_settings(**(plain | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bd(db=HERE, metadata=HERE), "--db and --metadata exclude each other"),
        (lambda: bd(db=HERE / "no" / "such"), "--db /no/such: not a folder"),
        (lambda: bd(timeout="soon"), "--bd-timeout 'soon' is not a duration: write it as 500ms"),
        (lambda: bd(assignee='a" OR status=closed'), "--assignee"),
        (lambda: bd(assignee=""), "--assignee"),
        (lambda: bd(actor="a\nb"), "--actor"),
        (lambda: options.service_settings(None, None, None, "0s"), "--timeout '0s' is not a duration"),
        (lambda: options.service_settings(None, "http://a", HERE / "none", "1s"), "--agent-token-file /none"),
        (lambda: options.reap_settings("1", "1m", OnStall.block, 3, 10), "--threshold '1' is not a duration"),
        (lambda: options.reap_settings("1m", "1 m", OnStall.block, 3, 10), "--grace '1 m' is not a duration"),
    ],
)
def test_a_wrong_value_names_its_option(call: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_durations_become_settings() -> None:
    settings = options.reap_settings("1h30m", "500ms", OnStall.requeue, 2, 5, True)
    assert (settings.threshold, settings.grace) == (timedelta(minutes=90), timedelta(milliseconds=500))
    assert (settings.on_stall, settings.max_attempts, settings.max_reap, settings.force) == ("requeue", 2, 5, True)


@pytest.mark.parametrize(
    ("values", "names"), [([], ()), (["a,b", " c ,"], ("a", "b", "c")), (["", ","], ()), (["epic"], ("epic",))]
)
def test_lists_may_be_repeated_or_separated_by_commas(values: list[str], names: tuple[str, ...]) -> None:
    assert options.names(values) == names


def test_the_token_comes_from_the_file_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_BEARER_TOKEN", "of-environment")
    file = tmp_path / "token"
    file.write_text("of-file\n")
    assert options.service_settings(None, "http://a", file, "1s").agent_token == Secret("of-file")
    assert options.service_settings(None, "http://a", None, "1s").agent_token == Secret("of-environment")
    assert options.service_settings(None, None, file, "1s").agent_token is None, "nobody to send it to"
    file.write_text("\n")
    assert options.service_settings(None, "http://a", file, "1s").agent_token is None


@pytest.mark.parametrize("content", [b"two words", b"a\nb", b"\xc3\xa9", b"\xff", b"a\x00b"])
def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        options.service_settings(None, "http://a", file, "1s")
    assert "two words" not in str(caught.value)
