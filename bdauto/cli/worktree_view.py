"""What `bdauto worktrees` shows on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bdauto.common.sanitize import clean
from bdauto.diagnostics.wording import DASH

if TYPE_CHECKING:
    from bdauto.agents.local.worktree_list import ListedWorktree


def worktrees_view(found: "Sequence[ListedWorktree]", *, remove: bool, dry_run: bool) -> RenderableType:
    """Render a list of worktrees. The last column says what becomes, or could become, of each."""
    if not found:
        return Text("no worktrees", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
    table.add_column("bead", max_width=20, overflow="fold")
    table.add_column("branch", max_width=24, overflow="fold")
    table.add_column("ahead", no_wrap=True, justify="right")
    table.add_column("dirty", no_wrap=True)
    table.add_column("result", max_width=14, overflow="fold")
    table.add_column("", overflow="fold", ratio=1, min_width=16)
    for one in found:
        dirty = DASH if one.changes is None else "yes" if one.changes else "no"
        ahead = DASH if one.ahead is None else str(one.ahead)
        table.add_row(
            Text(one.bead, style="cyan"),
            Text(clean(one.branch) or DASH, style="dim"),
            ahead,
            dirty,
            one.result or DASH,
            Text(_becomes(one, remove=remove, dry_run=dry_run)),
        )
    return table


def _becomes(one: "ListedWorktree", *, remove: bool, dry_run: bool) -> str:
    if one.kept:
        return f"kept: {clean(one.kept)}"
    if one.removed:
        return "removed"
    return "would be removed" if remove and dry_run else "can be removed"
