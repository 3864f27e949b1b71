"""The agent's words and its prompt: a bead's text put into templates, as text and nothing else.

A bead is written by whoever may write to the tracker. Its text never reaches a shell or a template engine: each
placeholder is replaced once, and what replaces it is not looked at again.
"""

import re
from collections.abc import Mapping, Sequence

from bdauto.domain.bead import Bead
from bdauto.domain.notes import AGENT_SIGN
from bdauto.sanitize import clean_lines

FIELD_BYTES = 40_000
"""So much of one field of a bead goes into a prompt, which must fit into one argument of a command (Linux: 128 KiB)."""
IN_WORDS = re.compile(r"\{(id|job|prompt)\}")
IN_PROMPT = re.compile(r"\{(id|job|title|description|acceptance)\}")

TEMPLATE = f"""\
You are working alone on bead {{id}}, an issue in the bd tracker of this project. Your job is {{job}}.

Before anything else, run:

    bd note {{id}} "{AGENT_SIGN} {{job}}"

Title: {{title}}

Description:
{{description}}

Acceptance criteria:
{{acceptance}}

(The bead ends here.)

While you work, write what you have found and done with `bd note {{id}} "..."`, at least every ten minutes: a bead
that nothing is noted on looks abandoned. Nobody can answer a question.

When every acceptance criterion holds, and you have checked it, run:

    bd close {{id}} --reason "what was done"

If you cannot finish, say why and hand the bead back:

    bd note {{id}} "blocked: why, and what is needed"
    bd update {{id}} --status blocked

Do not change other beads.
"""


def render(template: str, bead: Bead, job: str) -> str:
    """Return the prompt for a bead: the template with its placeholders replaced, each once."""
    values = {
        "id": bead.id,
        "job": job,
        "title": plain(bead.title).replace("\n", " "),
        "description": plain(bead.description) or "(none)",
        "acceptance": plain(bead.acceptance_criteria),
    }
    return _fill(IN_PROMPT, template, values)


def fill(words: Sequence[str], bead_id: str, job: str, prompt: str) -> list[str]:
    """Replace the placeholders in a command's words. No text of a bead can turn a word into an option."""
    values = {"id": bead_id, "job": job, "prompt": prompt}
    filled = [_fill(IN_WORDS, word, values) for word in words]
    return [
        f" {new}" if new.startswith("-") and not old.startswith("-") else new
        for old, new in zip(words, filled, strict=True)
    ]


def wants_stdin(words: Sequence[str]) -> bool:
    """Return whether the prompt goes to the command's standard input: it does where no word holds it."""
    return not any("{prompt}" in word for word in words)


def plain(text: str) -> str:
    """Return text of several lines, bounded, without control and format characters but for tabs and line ends."""
    kept = clean_lines(text[:FIELD_BYTES]).strip()
    cut = kept.encode()[:FIELD_BYTES].decode(errors="ignore")
    return cut if cut == kept and len(text) <= FIELD_BYTES else f"{cut} […]"


def _fill(pattern: re.Pattern[str], text: str, values: Mapping[str, str]) -> str:
    return pattern.sub(lambda match: values[match[1]], text)
