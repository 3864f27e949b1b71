"""The prompt of an agent: a bead's text put into a template, as text and nothing else.

A bead is written by whoever may write to the tracker. Its text never reaches a shell or a template engine: each
placeholder is replaced once, and what replaces it is not looked at again.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from bdauto.common.errors import UsageError
from bdauto.common.sanitize import clean_lines
from bdauto.domain.bead import Bead
from bdauto.domain.notes import AGENT_SIGN

FIELD_BYTES = 40_000
"""So much of one field of a bead goes into a prompt, which must fit into one argument of a command (Linux: 128 KiB)."""
IN_PROMPT = re.compile(r"\{(id|job|title|description|acceptance|previous|finish)\}")

NO_CRITERIA = "(none are given: do what the title and the description ask for)"

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
{{previous}}
While you work, write what you have found and done with `bd note {{id}} "..."`, at least every ten minutes: a bead
that nothing is noted on looks abandoned.

{{finish}}

If you need a decision that only a person can make, ask for it and end. Do not wait for the answer: you are started
again with it.

    bd create "the question" -l human -d "what you have found, and what can be chosen"
    bd dep add {{id}} ID-OF-THE-QUESTION
    bd update {{id}} --status open

If you cannot finish, say why and hand the bead back:

    bd note {{id}} "blocked: why, and what is needed"
    bd update {{id}} --status blocked

Do not change other beads but your question.
"""
_RULES = TEMPLATE.partition("{previous}\n")[2]
"""How to work on a bead, and how to end: what the built-in template says after the bead."""

_RESUMED = f"""\
You go on with bead {{id}} in this session. The job that worked on it here has ended. Your job is now {{job}}.

Before anything else, run:

    bd note {{id}} "{AGENT_SIGN} {{job}}"

{{previous}}

What you have done in this folder is still there. Look at it and at the bead (`bd show {{id}}`) before you go on,
because others may have changed both.

"""
_CHANGED = """\
The bead's text has changed. It is now:

Title: {title}

Description:
{description}

Acceptance criteria:
{acceptance}

(The bead ends here.)

"""
_OWN_RULES = "How to work on the bead, and how to end, is as you were told at first.\n"


CLOSES = """\
When every acceptance criterion holds, and you have checked it, run:

    bd close {id} --reason "what was done"\
"""
CHECKED = """\
When every acceptance criterion holds, and you have checked it, note that and end. Do not close the bead: your work is
checked when you have ended, and the bead is closed for you if it passes.

    bd note {id} "finished: what was done"\
"""
"""What replaces `{finish}`."""
LANDS = "Commit all your work on the branch that you are on, and push and merge nothing: that is done for you.\n\n"
"""What is told before that where the work is landed."""


def render(
    template: str, bead: Bead, job: str, previous: str = "", *, checked: bool = False, lands: bool = False
) -> str:
    """Return the prompt for a bead: the template with its placeholders replaced, each once.

    `previous` is about the earlier attempts. The built-in template has it as paragraphs of its own. `checked`: the
    agent leaves its bead open. `lands`: its commits are landed for it.
    """
    if template is TEMPLATE and previous:
        previous = f"\n{previous}\n"
    return substitute(IN_PROMPT, template, _values(bead, job) | _told(bead, previous, checked, lands))


def render_resumed(
    template: str,
    bead: Bead,
    job: str,
    previous: str,
    *,
    changed: bool,
    checked: bool = False,
    lands: bool = False,
) -> str:
    """Return the prompt for a bead on which an agent goes on in a session that began with `template`.

    `previous` is what has happened since. The bead's text is in the prompt only if it has `changed`.
    """
    rules = _RULES if template is TEMPLATE else _OWN_RULES
    given = _RESUMED + (_CHANGED if changed else "") + rules
    return substitute(IN_PROMPT, given, _values(bead, job) | _told(bead, previous, checked, lands))


def text_digest(bead: Bead) -> str:
    """Return a short digest of what a prompt quotes of a bead. It changes when somebody edits the bead's text."""
    values = _values(bead, "")
    return sha256("\0".join(values.values()).encode(errors="replace")).hexdigest()[:16]


def _told(bead: Bead, previous: str, checked: bool, lands: bool) -> dict[str, str]:
    finish = (LANDS if lands else "") + (CHECKED if checked else CLOSES)
    return {"previous": previous, "finish": finish.replace("{id}", bead.id)}


def _values(bead: Bead, job: str) -> dict[str, str]:
    return {
        "id": bead.id,
        "job": job,
        "title": plain(bead.title).replace("\n", " "),
        "description": plain(bead.description) or "(none)",
        "acceptance": plain(bead.acceptance_criteria) or NO_CRITERIA,
    }


def read_template(file: Path | None) -> str:
    """Return the template in this file, without one the built-in template. Raises UsageError."""
    if file is None:
        return TEMPLATE
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--agent-prompt {file}: {error.strerror}", hint="name a file that can be read") from None
    except UnicodeDecodeError:
        raise UsageError(f"--agent-prompt {file} is not UTF-8", hint="write it in UTF-8") from None
    if "\0" in text:
        raise UsageError(f"--agent-prompt {file} holds a null character", hint="take it out")
    return text


def plain(text: str, limit: int = FIELD_BYTES) -> str:
    """Return text of several lines, at most so many bytes, without control and format characters but tabs and lines."""
    kept = clean_lines(text[:limit]).strip()
    cut = kept.encode()[:limit].decode(errors="ignore")
    return cut if cut == kept and len(text) <= limit else f"{cut} […]"


def substitute(pattern: re.Pattern[str], text: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder once. What replaces it is not looked at again."""
    return pattern.sub(lambda match: values[match[1]], text)
