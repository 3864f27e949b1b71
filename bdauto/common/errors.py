"""What an operator can expect to go wrong, and the exit status of each.

    BdautoError
    ├── UsageError              2  an option or a configuration value
    ├── BdError                 3  the `bd` program
    │   ├── BdMissing              not found, or not executable
    │   ├── BdUnsupported          too old, or known to be harmful
    │   ├── BdTimeout              did not answer in time, and its process group was killed
    │   ├── BdFailed               exited with an error
    │   │   └── NoSuchBead         has no bead of this id
    │   ├── BdMoved                a guard of bd found the bead changed: nothing was written
    │   ├── BdConflict             a serialization failure that outlived its retries
    │   └── BdDrift                an answer that bdauto does not understand
    ├── ServiceError            4  what runs the agent
    │   ├── ServiceDown            unreachable, or failing
    │   └── ServiceDrift           refused, misconfigured, or an answer that bdauto does not understand
    │       ├── TokenRefused       the agent service does not accept the token
    │       └── ServiceRefusal     the Kubernetes API refuses
    │   └── AgentsDie              the agents of several beads died at once: dispatching is suspended
    └── PartlyDone              5  some beads failed and the others were handled, or a person is needed

Every message is one line: what happened, to which bead or program, and what to do next. Exit status 0 is "done, or
nothing to do", 1 a defect in bdauto, 130 an interruption.
"""


class BdautoError(Exception):
    """The base of every expected failure. `exit_code` is the process's exit status.

    `message` says what happened and may quote foreign text. `hint` says what to do next and is always bdauto's own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class UsageError(BdautoError):
    """An option, an environment variable or a file named by one of them is wrong."""

    exit_code = 2


class BdError(BdautoError):
    """The `bd` program is missing, too old, failed, or answered something bdauto does not understand."""

    exit_code = 3


class BdMissing(BdError):
    """`bd` was not found or cannot be executed."""


class BdUnsupported(BdError):
    """This version of `bd` is too old, or known to undo other writers' changes."""


class BdTimeout(BdError):
    """`bd` did not answer in time and was killed with its process group. A write may or may not have happened."""


class BdFailed(BdError):
    """`bd` exited with an error."""


class NoSuchBead(BdFailed):
    """`bd` knows no bead of this id."""


class BdMoved(BdError):
    """A guard of `bd update` found that the bead is no longer as it was read. Nothing was written."""


class BdConflict(BdError):
    """`bd` reported a serialization failure on every try."""


class BdDrift(BdError):
    """`bd` answered something that bdauto does not understand. The message names the field or byte."""


class ServiceError(BdautoError):
    """What runs the agent is unreachable, refuses, or is not understood."""

    exit_code = 4


class ServiceDown(ServiceError):
    """A service cannot be reached or fails. `silent`: no connection, or no complete answer in time."""

    def __init__(self, message: str, *, hint: str = "", silent: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.silent = silent


class ServiceDrift(ServiceError):
    """A service refuses, is misconfigured, or answers something bdauto does not understand."""


class TokenRefused(ServiceDrift):
    """The agent service does not accept the token (401 or 403)."""


class ServiceRefusal(ServiceDrift):
    """The Kubernetes API has answered and refused. `code` is the HTTP status, `reason` and `words` are the API's."""

    def __init__(self, message: str, *, hint: str = "", code: int = 0, reason: str = "", words: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.reason = reason
        self.words = words


class AgentsDie(ServiceError):
    """The agents of several beads died at once, so dispatching is suspended."""


class PartlyDone(BdautoError):
    """Some beads failed and the others were handled, or a person has to decide."""

    exit_code = 5
