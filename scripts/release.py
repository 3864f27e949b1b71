"""`make release VERSION=1.2.3`: all that needs no account. It leaves a commit, a tag and the files in `dist/`."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import bdauto

ROOT = Path(__file__).parents[1]
CHANGELOG = ROOT / "CHANGELOG.md"
NAMES_THE_VERSION = ("bdauto/__init__.py", "Makefile", "deploy", ":!deploy/requirements*.txt", "docs/deploy.md")
"""Files and folders in which the version of the last release stands, as the tag of the image for example."""
LEFT = """\
Done: commit, tag v{version}, dist/. What is left needs your accounts:
  git push --follow-tags
  .venv/bin/twine upload dist/bdauto-{version}*
  make image IMAGE=REGISTRY/bdauto:{version} BD_SHA256=…, then push it
  a release on the project's page, with the section of CHANGELOG.md
Then begin the next section of CHANGELOG.md: ## NEXT (unreleased)"""


def run(*words: str) -> None:
    """Run a program in the project's folder. Ends the release if it fails."""
    if subprocess.run(words, cwd=ROOT, check=False).returncode:
        sys.exit(f"{' '.join(words)} failed: nothing was released")


def git(*words: str) -> str:
    """Return what git says about the project."""
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def check(version: str) -> None:
    """Refuse what can never be released."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", version):
        sys.exit(f"VERSION={version} is not a version: write it as 1.2.3 or 1.2.3rc1")
    if git("status", "--porcelain"):
        sys.exit("there are uncommitted changes: commit or remove them first")
    if git("tag", "--list", f"v{version}"):
        sys.exit(f"the tag v{version} exists: choose the next version")
    if f"## {version} (unreleased)" not in CHANGELOG.read_text():
        sys.exit(f"CHANGELOG.md has no section '## {version} (unreleased)': write what has changed")


def write(version: str) -> None:
    """Put the version in place of the last one, and today's date into the changelog."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    CHANGELOG.write_text(CHANGELOG.read_text().replace(f"## {version} (unreleased)", f"## {version} ({today})", 1))
    for name in git("grep", "-lF", bdauto.__version__, "--", *NAMES_THE_VERSION).splitlines():
        file = ROOT / name
        file.write_text(file.read_text().replace(bdauto.__version__, version))


def main() -> None:
    """Release the version that the command line names."""
    version = sys.argv[1]
    check(version)
    run("make", "static", "test-all")
    write(version)
    run(sys.executable, "-m", "build", "--outdir", "dist")
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, (ROOT / "dist").glob(f"bdauto-{version}*")))
    run("git", "commit", "--all", "--message", f"Release {version}")
    run("git", "tag", "--annotate", f"v{version}", "--message", f"bdauto {version}")
    print(LEFT.format(version=version))


if __name__ == "__main__":
    main()
