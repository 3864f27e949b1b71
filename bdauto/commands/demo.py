"""`bdauto demo`."""

import contextlib
from typing import Annotated

import typer

from bdauto import options
from bdauto.errors import BdFailed, BdMissing
from bdauto.text import clean


def demo(
    real_bd: Annotated[
        bool, typer.Option("--real-bd", help="Tell it on the real bd, in a temporary folder, not on the stand-in.")
    ] = False,
    bd: options.BdPath = "bd",
) -> None:
    """Show dispatch and reap in a short story, self-contained: nothing to install, nothing left behind."""
    from rich.console import Console

    from bdauto.demo import Story
    from bdauto.sandbox import Sandbox

    with contextlib.ExitStack() as stack:
        workspace = None
        if real_bd:
            from bdauto.sandbox.real import RealBd

            try:
                workspace = stack.enter_context(RealBd(bd))
            except FileNotFoundError:
                raise BdMissing(f"bd: {clean(bd, 200)!r} not found; install bd, or name it with --bd") from None
            except RuntimeError as error:
                raise BdFailed(clean(str(error))) from None
        sandbox = stack.enter_context(Sandbox(capacity=2, prefix="demo", real=workspace))
        console = Console(highlight=False)
        Story(sandbox, console).tell()
