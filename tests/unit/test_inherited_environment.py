"""What of the environment that bdauto was started in reaches what it starts."""

import pytest

from bdauto.common.environment import inherited

HOOK = {"GIT_AUTHOR_DATE": "@1 +0000", "GIT_AUTHOR_NAME": "Bob", "GIT_AUTHOR_EMAIL": "bob@example.org"}


def test_the_author_of_the_commit_whose_hook_it_is_is_not_the_agents() -> None:
    assert inherited({**HOOK, "HOME": "/h"}) == {"HOME": "/h"}


def test_an_author_that_the_user_has_set_stays() -> None:
    chosen = {name: value for name, value in HOOK.items() if name != "GIT_AUTHOR_DATE"}
    assert inherited(chosen) == chosen


@pytest.mark.parametrize(
    "name",
    ["GIT_DIR", "GIT_CONFIG_KEY_12", "GIT_PUSH_OPTION_0", "GIT_LITERAL_PATHSPECS", "CLAUDECODE", "NOTIFY_SOCKET"],
)
def test_what_describes_where_bdauto_was_started_stays_behind(name: str) -> None:
    assert inherited({name: "x"}) == {}


@pytest.mark.parametrize("name", ["GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "ANTHROPIC_API_KEY", "CODEX_HOME", "PATH"])
def test_settings_and_credentials_are_inherited(name: str) -> None:
    assert inherited({name: "x"}) == {name: "x"}
