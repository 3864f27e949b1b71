"""A bead's text in a prompt and in a command's words: text, whatever it looks like."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdauto.agents.local.words import check_words, fill, wants_stdin
from bdauto.agents.prompt import FIELD_BYTES, TEMPLATE, plain, render
from bdauto.common.errors import UsageError
from tests.support.fakes import bead

HOSTILE = [
    "$(touch /tmp/x); `id` && rm -rf ~ | sh",
    "{prompt} {job} {0} {title.__class__} %(id)s ${HOME} {{id}}",
    "'; DROP TABLE issues; --",
    '"; exit 1; #',
]


def test_the_built_in_prompt_asks_for_what_bdauto_believes() -> None:
    prompt = render(
        TEMPLATE, bead("x-1", title="Fix it", description="It broke.", acceptance_criteria="It works."), "w1"
    )
    for text in ("Fix it", "It broke.", "It works.", '"claimed by agent w1"', "bd close x-1", "--status blocked"):
        assert text in prompt
    assert "{" not in prompt


def test_a_bead_without_criteria_is_asked_for_by_its_text() -> None:
    prompt = render(TEMPLATE, bead("x-1", title="Fix it", acceptance_criteria=" "), "w1")
    assert "(none are given: do what the title and the description ask for)" in prompt


@pytest.mark.parametrize("text", HOSTILE)
def test_a_beads_text_is_put_in_as_it_is_and_never_expanded(text: str) -> None:
    prompt = render(
        "<{title}|{description}|{acceptance}>", bead(title=text, description=text, acceptance_criteria=text), "w1"
    )
    assert prompt == f"<{text}|{text}|{text}>"
    assert fill(["-p", "{prompt}", "{id}", "x{job}x"], "x-1", "w1", prompt) == ["-p", prompt, "x-1", "xw1x"]


def test_unknown_placeholders_stay_as_they_are() -> None:
    assert render("{id} {notes} {", bead("x-1"), "w1") == "x-1 {notes} {"
    assert fill(["{title}", "{id}"], "x-1", "w1", "p") == ["{title}", "x-1"]


def test_a_beads_text_never_becomes_an_option() -> None:
    assert fill(["claude", "{prompt}"], "x-1", "w1", "--dangerous") == ["claude", " --dangerous"]
    assert fill(["claude", "--prompt={prompt}"], "x-1", "w1", "--dangerous") == ["claude", "--prompt=--dangerous"]


def test_the_prompt_is_on_standard_input_unless_a_word_holds_it() -> None:
    assert wants_stdin(["claude", "-p"])
    assert wants_stdin(["aider", "{id}"])
    assert not wants_stdin(["aider", "--message={prompt}"])


def test_a_title_stays_on_one_line() -> None:
    assert render("{title}.", bead(title="one\ntwo"), "w1") == "one two."


@given(st.text(alphabet=st.characters(), max_size=200))
def test_text_loses_what_a_terminal_or_an_argument_cannot_bear(text: str) -> None:
    shown = plain(text)
    assert not set(shown) & set("\0\x1b\x07\u202e\u2066\u200b\r")
    shown.encode()


def test_text_is_bounded_in_bytes() -> None:
    assert len(plain("é" * FIELD_BYTES).encode()) < FIELD_BYTES + 10
    assert plain("é" * FIELD_BYTES).endswith("é […]")
    assert plain("x" * FIELD_BYTES) == "x" * FIELD_BYTES


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'claude -p {prompt}'",
        "sh -c 'claude -p \"{prompt}\"' sh",
        "bash -lc {prompt}",
        "/usr/bin/env -S 'claude -p {prompt}'",
        "env -S{prompt}",
        "env --split-string={prompt}",
        "python3 -c 'print(\"{prompt}\")'",
        "python3.12 -c {prompt}",
        "node --eval={prompt}",
        "node -p {prompt}",
        "perl -ne {prompt}",
        "su agent -c 'claude {prompt}'",
        "ssh host claude -p {prompt}",
        "gcloud compute ssh host -- claude -p {prompt}",
        "sshpass -e ssh host claude --prompt={prompt}",
        "make agent PROMPT={prompt}",
        "docker run image sh -c 'claude $(echo {prompt})'",
        "claude -p '{prompt};'",
        "claude -p x{prompt}",
        "claude -p '{prompt}\n{job}'",
        "sudo -u agent sh -ec {prompt}",
        "bash -euo pipefail -c {prompt}",
        "docker run image bash --rcfile .rc +e -O extglob -c {prompt}",
        "python3 -X dev -W ignore -c {prompt}",
        "su - agent -c {prompt}",
        "runuser agent --command={prompt}",
        "flock /run/agent.lock -c {prompt}",
        "node20 -e {prompt}",
        "bash-5.2 -c {prompt}",
        "powershell.exe -Command {prompt}",
        "tmux new-session -d {prompt}",
    ],
)
def test_a_prompt_that_would_be_run_as_code_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="would be run as code") as refused:
        check_words("--agent-command", shlex.split(command))
    assert "standard input" in refused.value.hint
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "command",
    [
        "claude -p",
        "claude -p {prompt}",
        "aider --message={prompt} --yes",
        "env PROMPT={prompt} ./agent.sh",
        "docker run -e PROMPT={prompt} image",
        "sh -c 'claude -p \"$1\"' sh {prompt}",
        "sh -c 'echo {id} {job}; claude -p'",
        "ssh host 'BEAD_ID={id} claude -p'",
        "python -m aider -c {prompt}",
        "python agent.py -p {prompt}",
        "timeout 10m claude -c {prompt}",
        "flock /run/agent.lock claude -c {prompt}",
        "bash -euo pipefail agent.sh -p {prompt}",
        "python -W ignore agent.py -p {prompt}",
    ],
)
def test_a_prompt_in_a_word_of_its_own_is_taken(command: str) -> None:
    check_words("--agent-command", shlex.split(command))


def test_an_agent_whose_work_is_landed_is_asked_to_commit_it() -> None:
    told = render(TEMPLATE, bead(), "w1", checked=True, lands=True)
    assert "Commit all your work on the branch that you are on" in told
    assert "Do not close the bead" in told
    assert "Commit all" not in render(TEMPLATE, bead(), "w1", checked=True)
