"""A stand-in for `bd`, BeadBoard and the agent service: what the demo and the tests run on.

`Sandbox` is the way in. It is loaded on first use, because the stand-in for `bd` imports this package at every call and
must start fast.
"""

TYPE_CHECKING = False  # as typing has it, whose import alone would cost a third of the stand-in's start

if TYPE_CHECKING:
    from bdauto.sandbox.fake_beadboard import FakeBeadBoard
    from bdauto.sandbox.fake_http import FakeReply
    from bdauto.sandbox.sandbox import AGENT_SCRIPT, Sandbox

__all__ = ["AGENT_SCRIPT", "FakeBeadBoard", "FakeReply", "Sandbox"]
_MODULES = {
    "AGENT_SCRIPT": "sandbox",
    "FakeBeadBoard": "fake_beadboard",
    "FakeReply": "fake_http",
    "Sandbox": "sandbox",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
