"""`bdauto demo`."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bdauto.cli.options import Offer, with_options
from bdauto.common.errors import BdFailed, BdMissing
from bdauto.common.sanitize import clean
from bdauto.domain.settings import BdSettings, DemoSettings

if TYPE_CHECKING:
    from bdauto.sandbox.real_bd import RealBd


@with_options
def demo(settings: DemoSettings, bd: Annotated[BdSettings, Offer(only=("bd_path",))]) -> None:
    """Tell a short story of dispatch and reap. Needs nothing installed and leaves nothing behind."""
    from rich.console import Console

    from bdauto.cli.local_story import LocalStory
    from bdauto.cli.story import Story
    from bdauto.sandbox import Sandbox

    with contextlib.ExitStack() as stack:
        workspace = None
        if settings.real_bd:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bdauto-demo-")))
            workspace = _workspace(bd.bd_path, folder)
        sandbox = stack.enter_context(Sandbox(capacity=2, prefix="demo", real=workspace))
        console = Console(highlight=False)
        (LocalStory if settings.local else Story)(sandbox, console).tell()


def _workspace(bd: str, folder: Path) -> "RealBd":
    from bdauto.sandbox.real_bd import RealBd

    found = shutil.which(bd)
    if found is None:
        raise BdMissing(f"bd: {clean(bd, 200)!r} not found", hint="install bd, or name it with --bd")
    try:
        return RealBd.create(Path(found).absolute(), folder, "demo")
    except RuntimeError as error:
        raise BdFailed(clean(str(error))) from None
