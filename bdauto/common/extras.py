"""Optional libraries, and how to install one into the environment that this copy of bdauto runs in."""

import os
import sys
from pathlib import Path

EXTRAS = {
    "kubernetes": ("lightkube",),
    "metrics": ("prometheus_client", "waitress"),
    "notify": ("apprise",),
    "watch": ("pymysql",),
    "web": ("jinja2", "pygal"),
}
"""The modules that each extra brings."""


def missing(extra: str) -> bool:
    """Return True if a library of the extra is not installed."""
    from importlib.util import find_spec

    return any(find_spec(module) is None for module in EXTRAS[extra])


def advice(extra: str) -> str:
    """Return what to do to have the extra's libraries. An image with a read-only root takes none."""
    if not os.access(sys.prefix, os.W_OK):
        return f"build an image or an environment with the extra {extra!r}: {sys.prefix} cannot be written"
    return f"run `{how_to_install(extra)}`"


def how_to_install(extra: str) -> str:
    """Return the command that adds the extra's libraries to this environment.

    It names the libraries and never `bdauto`: that name is not registered on the package index, and could be by anyone.
    """
    from importlib.util import find_spec

    libraries = " ".join(EXTRAS[extra]).replace("_", "-")
    environment = Path(sys.prefix)
    if (environment / "pipx_metadata.json").exists():
        return f"pipx inject {environment.name} {libraries}"
    if find_spec("pip"):
        return f"{sys.executable} -m pip install {libraries}"
    return f"uv pip install --python {sys.executable} {libraries}"
