"""bdauto runs on Linux and macOS: it uses nothing that only Linux has. `make check` asks mypy the same."""

import ast
from pathlib import Path

import pytest

import bdauto

SOURCES = sorted(Path(bdauto.__file__).parent.rglob("*.py"))
LINUX_ONLY = frozenset(
    [
        "pipe2",
        "memfd_create",
        "pidfd_open",
        "pidfd_send_signal",
        "eventfd",
        "timerfd_create",
        "epoll",
        "splice",
        "copy_file_range",
        "getrandom",
        "setns",
        "unshare",
        "posix_fadvise",
        "posix_fallocate",
        "sched_setaffinity",
        "sched_getaffinity",
        "getresuid",
        "setresuid",
        "setresgid",
        "fdatasync",
        "O_PATH",
        "O_TMPFILE",
        "O_DIRECT",
        "sigwaitinfo",
        "sigtimedwait",
        "SOCK_CLOEXEC",
        "SOCK_NONBLOCK",
        "prlimit",
        "F_SETPIPE_SZ",
        "F_OFD_SETLK",
        "CLOCK_BOOTTIME",
    ]
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_nothing_is_used_that_macos_lacks(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        name = getattr(node, "attr", getattr(node, "name", ""))
        asked_first = f'hasattr(os, "{name}")' in text
        assert name not in LINUX_ONLY or asked_first, f"{source}: {name} is not on macOS"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not node.value.startswith(("/proc/", "/sys/", "/dev/shm")), f"{source}: {node.value}"
