"""bd's command line: which flags each verb has, and how they are read. Written by hand: argparse starts too slowly."""

from collections.abc import Sequence

GLOBAL_SWITCHES = {"json", "readonly", "quiet", "verbose", "sandbox", "help"}
GLOBAL_VALUES = {"db", "actor", "dolt-auto-commit"}
SHORT = {"q": "quiet", "v": "verbose", "a": "assignee", "p": "priority", "t": "type", "d": "description", "n": "limit"}
# verb: (switches, flags with a value, short names that differ from SHORT)
VERBS: dict[str, tuple[str, str, dict[str, str]]] = {
    "version": ("", "", {}),
    "where": ("", "", {}),
    "init": (
        "server proxied-server external skip-hooks skip-agents non-interactive stealth",
        "prefix server-host server-port",
        {"p": "prefix"},
    ),
    "create": (
        "ephemeral silent",
        "assignee priority type description acceptance labels label defer due parent metadata title notes design",
        {"l": "labels"},
    ),
    "ready": (
        "",
        "assignee limit priority sort exclude-type type label exclude-label metadata-field parent",
        {"s": "sort", "l": "label"},
    ),
    "list": (
        "all flat reverse include-gates include-infra include-templates",
        "id assignee status limit priority sort exclude-type type label updated-before updated-after metadata-field",
        {"s": "status", "l": "label"},
    ),
    "query": ("all reverse", "limit sort", {}),
    "show": ("", "id", {}),
    "history": ("events", "limit", {}),
    "update": (
        "claim force",
        "status assignee if-status if-assignee priority type title description acceptance notes append-notes design"
        " set-metadata unset-metadata metadata defer due add-label remove-label",
        {"s": "status"},
    ),
    "note": ("", "", {}),
    "comment": ("", "", {}),
    "comments": ("", "", {}),
    "close": ("force", "reason", {"r": "reason"}),
    "delete": ("force", "", {}),
    "dep add": ("", "type blocked-by depends-on", {}),
    "dolt commit": ("", "message", {"m": "message"}),
    "kv get": ("", "", {}),
    "kv set": ("", "", {}),
    "kv clear": ("", "", {}),
    "kv list": ("", "", {}),
    "import": ("", "", {}),
    "sql": ("csv", "", {}),
}


class UsageError(Exception):
    """bd does not understand its command line. The text is what bd prints."""


class Flags:
    """A parsed command line. A flag may be given several times. `last` is its final value, or None."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.words: list[str] = []
        self.values: dict[str, list[str]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def last(self, name: str) -> str | None:
        """The value of a flag."""
        return self.values[name][-1] if name in self.values else None

    def all(self, name: str) -> list[str]:
        """All values of a repeatable flag."""
        return self.values.get(name, [])

    def listed(self, *names: str) -> list[str]:
        """All values of repeatable flags that also take lists separated by commas."""
        return [part.strip() for name in names for value in self.all(name) for part in value.split(",") if part.strip()]


def find_verb(argv: Sequence[str]) -> str:
    """The verb of a command line: its first word, its first two (`kv get`), or ""."""
    words, skip = [], False
    for arg in argv:
        if skip:
            skip = False
        elif arg.startswith("-"):
            skip = arg.lstrip("-") in GLOBAL_VALUES
        else:
            words.append(arg)
    return next((verb for verb in (" ".join(words[:2]), *words[:1]) if verb in VERBS), words[0] if words else "")


def parse(argv: Sequence[str]) -> Flags:
    """Parse a command line. Global flags may stand anywhere. Raises UsageError in bd's words."""
    verb = find_verb(argv)
    if verb not in VERBS:
        raise UsageError(f'unknown command "{verb}" for "bd"\nRun \'bd --help\' for usage.' if verb else "no command")
    switches, values, short = VERBS[verb]
    allowed = dict.fromkeys(GLOBAL_SWITCHES | set(switches.split()), False)
    allowed |= dict.fromkeys(GLOBAL_VALUES | set(values.split()), True)
    flags, rest = Flags(verb), list(argv)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            flags.words += rest
            break
        if not arg.startswith("-") or arg == "-":
            flags.words.append(arg)
            continue
        if arg.startswith("--"):
            name, equals, value = arg[2:].partition("=")
        else:
            name, equals, value = {**SHORT, **short}.get(arg[1], arg[1]), arg[2:], arg[2:].removeprefix("=")
        if name not in allowed:
            shown = (
                f"unknown flag: --{name}" if arg.startswith("--") else f"unknown shorthand flag: '{arg[1]}' in {arg}"
            )
            raise UsageError(f"{shown}\nUsage:\n  bd {verb} [flags]\n")
        if allowed[name] and not equals:
            if not rest:
                raise UsageError(f"flag needs an argument: {arg}\nUsage:\n  bd {verb} [flags]\n")
            value = rest.pop(0)
        if allowed[name] or value != "false":
            flags.values.setdefault(name, []).append(value)
    del flags.words[: verb.count(" ") + 1]
    return flags


def help_of(verb: str, *, guards: bool) -> str:
    """What `bd VERB --help` says of the flags. The guards are bd 1.3's."""
    switches, values, _ = VERBS[verb]
    names = [name for name in (switches + " " + values).split() if guards or not name.startswith("if-")]
    return "".join(f"      --{name}\n" for name in names)
