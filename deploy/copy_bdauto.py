"""Copy bdauto, its Python, bd, and the libraries of all three into a folder: `bdauto-copy FOLDER`.

An init container of an agent's pod runs it, so that the agent's image needs none of them: no Python, no glibc, only
/bin/sh. What is copied is started by its own dynamic loader, so it runs in a folder of any name.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

LOADED = 'exec "$lib/loader" --argv0 "$0" --library-path "$lib"'
WRAPPERS = {
    "python": LOADED + ' "$lib/python" "$@"',
    "bd": LOADED + ' "$lib/bd" "$@"',
    # For the agent, too. The image's own programs go first. -I: its PYTHONPATH is not ours.
    "bdauto": 'PATH="${PATH:+$PATH:}${0%/*}" exec "${0%/*}/python" -I -m bdauto "$@"',
}


def main() -> None:
    """Write the folder: bin/ with the programs, lib/ with what they load."""
    target = Path(sys.argv[1])
    lib, programs = target / "lib", target / "bin"
    standard = Path(sysconfig.get_path("stdlib"))
    leave = shutil.ignore_patterns("site-packages", "dist-packages", "test", "tests", "idlelib", "config-*")
    copied = lib / standard.name
    shutil.copytree(standard, copied, ignore=leave, dirs_exist_ok=True)
    shutil.copytree(sysconfig.get_path("purelib"), copied / "site-packages", dirs_exist_ok=True)
    bd = shutil.which("bd")
    if not bd:
        sys.exit("bd is not on PATH")
    for source, name in ((Path(sys.executable).resolve(), "python"), (Path(bd), "bd")):
        shutil.copy(source, lib / name)
    for library in libraries([lib / "python", lib / "bd", *copied.rglob("*.so")]):
        loader = library.name.startswith("ld-")
        shutil.copy(library, lib / ("loader" if loader else library.name))
    programs.mkdir(exist_ok=True)
    for name, line in WRAPPERS.items():
        (programs / name).write_text(f'#!/bin/sh\nlib="${{0%/*}}/../lib"\n{line}\n')
        (programs / name).chmod(0o755)


def libraries(files: list[Path]) -> set[Path]:
    """Return the shared libraries that these files load, the dynamic loader among them."""
    told = subprocess.run(["ldd", *files], capture_output=True, text=True).stdout  # 1 for a static file  # noqa: S607
    found = {Path(path) for path in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", told, re.MULTILINE)}
    # glibc loads it by name when a thread ends early, and aborts without it.
    return found | {path for one in found for path in one.parent.glob("libgcc_s.so.1")}


if __name__ == "__main__":
    main()
