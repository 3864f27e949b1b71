"""Run the contract and end-to-end suites on each real bd in a folder, in each topology, and print a table.

    make real-bd BD_DIR=~/bds               # ~/bds/1.0.3/bd, ~/bds/1.3.0/bd …; dolt on PATH

A cell is passed/failed/otherwise/skipped. tests/contract/differences.py has what may answer otherwise than 1.0.3.
K chooses among the tests as pytest's -k does, e.g. K='race or kill', and JOBS runs so many at once.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

TOPOLOGIES = ("server", "embedded", "proxied")
SUITES = ("tests/contract", "tests/e2e")


def main(folder: Path) -> int:
    """Print a row for each bd. Return 1 if a test failed."""
    programs = sorted(folder.glob("*/bd"))
    if not programs:
        sys.stderr.write(f"no bd in {folder}/*/bd\n")
        return 2
    print(f"| bd | {' | '.join(TOPOLOGIES)} | date |", "|---" * (len(TOPOLOGIES) + 2) + "|", sep="\n", flush=True)
    failed: list[str] = []
    for program in programs:
        cells = [_cell(program, topology, failed) for topology in TOPOLOGIES]
        print(f"| {_version(program)} | {' | '.join(cells)} | {time.strftime('%Y-%m-%d')} |", flush=True)
    upgraded = len(programs) == 1 or _upgrades(folder)
    print(*failed, sep="\n")
    return 1 if failed or not upgraded else 0


def _upgrades(folder: Path) -> bool:
    """Run one database under each bd in turn, and say how it went."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--require-bd",
        f"--bd-dir={folder}",
        "tests/e2e/test_upgrade_chain.py",
    ]
    passed = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    print(f"\none database under each bd in turn: {'passed' if passed else 'FAILED'}")
    return passed


def _version(program: Path) -> str:
    said = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    number, build = re.search(r"(\d+\.\d+\.\d+\S*)(?: \((\w+))?", said).groups()  # type: ignore[union-attr]
    return f"{number} ({build})" if build else str(number)


def _cell(program: Path, topology: str, failed: list[str]) -> str:
    """Run the suites in one topology. Return `passed/failed/otherwise/skipped`, and `-` where bd does not offer it."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-q", "--require-bd", "-p", "no:cacheprovider"]
        command += [*SUITES, f"--junitxml={report.name}", "-n", os.environ.get("JOBS", "auto"), "--timeout=600"]
        command += ["-k", f"real-{topology} and ({os.environ.get('K', 'test')})"]
        environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
        cases = list(ElementTree.parse(report.name).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped[@type='pytest.skip']") is not None]
    otherwise = [case for case in cases if case.find("skipped[@type='pytest.xfail']") is not None]
    failed += [f"{program.parent.name} {topology}: {case.get('classname')}::{case.get('name')}" for case in bad]
    passed = len(cases) - len(bad) - len(skipped) - len(otherwise)
    return f"{passed}/{len(bad)}/{len(otherwise)}/{len(skipped)}" if passed or bad else "-"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
