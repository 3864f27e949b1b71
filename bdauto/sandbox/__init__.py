"""A stand-in for `bd`, BeadBoard and the agent service: what the demo and the tests run on.

`Sandbox` is the way in. It is loaded on first use, because the stand-in for `bd` imports this package at every call and
must start fast.
"""

TYPE_CHECKING = False  # as typing has it, whose import alone would cost a third of the stand-in's start

if TYPE_CHECKING:
    from bdauto.sandbox.board import Board, Job, Post, Reply
    from bdauto.sandbox.world import Pause, Sandbox

__all__ = ["Board", "Job", "Pause", "Post", "Reply", "Sandbox"]


def __getattr__(name: str) -> object:
    if name in ("Pause", "Sandbox"):
        from bdauto.sandbox import world

        return getattr(world, name)
    if name in __all__:
        from bdauto.sandbox import board

        return getattr(board, name)
    raise AttributeError(name)
