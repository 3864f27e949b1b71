"""bd inside this process: the sandbox's stand-in without starting it, for tests that ask it thousands of times."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from bdauto.bd.client import Bd
from bdauto.bd.running import RunningCommand, failure, lacks_readonly
from bdauto.domain.settings import BdSettings
from bdauto.sandbox import Sandbox
from bdauto.sandbox.fake_bd import main as stand_in
from tests.support.fakes import Answered

T = TypeVar("T")


class InProcess(Bd):
    """Runs the stand-in's `run`, with the command lines and the parsing of the real thing."""

    def __init__(self, sandbox: Sandbox, *, readonly: bool = False) -> None:
        super().__init__(BdSettings(bd_path=str(sandbox.bd_path), db=sandbox.db), readonly=readonly)
        self.verbs: list[str] = []

    def _start(
        self, command: Sequence[str], verb: str, parse: Callable[[bytes], T], **variables: str
    ) -> RunningCommand[T]:
        self.verbs.append(verb)
        answer = stand_in.run([*self._prefix[1:], *command], env=variables, cwd="/")
        if lacks_readonly(answer.err.encode()):
            self._drop_readonly()
            answer = stand_in.run([*self._prefix[1:], *command], env=variables, cwd="/")

        def result() -> T:
            if answer.code != 0:
                raise failure(verb, answer.code, answer.out.encode(), answer.err.encode())
            return parse(answer.out.encode())

        return Answered(result)
