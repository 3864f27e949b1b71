"""What an init container copies into an agent's pod: it runs by its own loader and libraries, whatever the image is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.manifests import DEPLOY, tool

SHOWN = "import os, sys; print(sys.executable, os.environ['PATH'], sys.flags.isolated, sys.argv[1:])"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy made by an installation with a small bdauto, and with /bin/echo as its bd."""
    tool("ldd", "libc-bin")
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    [packages] = (folder / "venv" / "lib").glob("python3*/site-packages")
    (packages / "bdauto").mkdir()
    (packages / "bdauto" / "__main__.py").write_text(SHOWN)
    (folder / "bd").symlink_to(str(shutil.which("echo")))
    program = [folder / "venv" / "bin" / "python", DEPLOY / "copy_bdauto.py", folder / "copy"]
    subprocess.run(program, env={"PATH": f"{folder}:/usr/bin:/bin"}, check=True)
    return folder / "copy"


def run(*words: object, path: str = "/usr/bin:/bin") -> str:
    """Run a program with a PATH and a PYTHONPATH of the agent's image, and return what it prints."""
    env = {"PATH": path, "PYTHONPATH": "/nowhere", "PYTHONHOME": ""}
    done = subprocess.run([str(word) for word in words], env=env, capture_output=True, text=True, check=True)
    return done.stdout


def test_python_loads_nothing_of_the_image(copied: Path) -> None:
    script = "import ssl, hashlib, ctypes, sys; print(sys.prefix); print(open('/proc/self/maps').read())"
    prefix, *maps = run(copied / "bin" / "python", "-c", script).splitlines()
    assert prefix == str(copied)
    mapped = {found[0] for line in maps if (found := re.findall(r"/.*", line))}
    foreign = [name for name in mapped if not Path(name).resolve().is_relative_to(copied)]
    assert [name for name in foreign if "locale" not in name and "gconv" not in name] == []


def test_a_thread_may_end_early(copied: Path) -> None:
    """Glibc loads a library for it by its name, and would abort without it."""
    script = (
        "import ctypes, os, threading, time\n"
        "threading.Thread(target=ctypes.CDLL(None).pthread_exit, args=(None,), daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'libgcc_s' in line}, flush=True)\n"
        "os._exit(0)"
    )
    [loaded] = run(copied / "bin" / "python", "-c", script).split()
    assert Path(loaded).resolve().is_relative_to(copied)


def test_python_starts_itself_again(copied: Path) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(42)'], check=True)"
    assert run(copied / "bin" / "python", "-c", script) == "42\n"


def test_bd_is_there_for_the_agent_after_the_programs_of_the_image(copied: Path) -> None:
    assert run(copied / "bin" / "bd", "close", "x-1") == "close x-1\n"
    told = run(copied / "bin" / "bdauto", "agent-entry", "--", "a b")
    assert told == f"{copied}/bin/python /usr/bin:/bin:{copied}/bin 1 ['agent-entry', '--', 'a b']\n"
