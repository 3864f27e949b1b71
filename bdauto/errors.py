"""What an operator can expect to go wrong, and the exit status of each.

    BdautoError
    ├── UsageError              2  an option or a configuration value
    ├── BdError                 3  the `bd` program
    │   ├── BdMissing              not found, or not executable
    │   ├── BdUnsupported          too old, or known to be harmful
    │   ├── BdTimeout              did not answer in time; its process group was killed
    │   ├── BdFailed               exited with an error
    │   ├── BdConflict             a serialization failure that outlived its retries
    │   └── BdDrift                an answer that bdauto does not understand
    ├── ServiceError            4  BeadBoard or the agent service
    │   ├── ServiceDown            unreachable, or failing
    │   └── ServiceDrift           refused, misconfigured, or an answer that bdauto does not understand
    └── PartlyDone              5  some beads failed, the others were handled; or a person is needed

Every message is one line: what happened, to which bead or program, and what to do next. Exit status 0 is "done, or
nothing to do", 1 a defect in bdauto, 130 an interruption.
"""


class BdautoError(Exception):
    """The base of every expected failure; `exit_code` is the process's exit status."""

    exit_code = 1


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
    """`bd` did not answer in time; it was killed with its process group, so a write may or may not have happened."""


class BdFailed(BdError):
    """`bd` exited with an error."""


class BdConflict(BdError):
    """`bd` reported a serialization failure on every try."""


class BdDrift(BdError):
    """`bd` answered something bdauto does not understand; the message names the field or byte."""


class ServiceError(BdautoError):
    """BeadBoard or the agent service is unreachable, refused, or is not understood."""

    exit_code = 4


class ServiceDown(ServiceError):
    """A service cannot be reached or fails."""


class ServiceDrift(ServiceError):
    """A service refuses, is misconfigured, or answers something bdauto does not understand."""


class PartlyDone(BdautoError):
    """Some beads failed and the others were handled, or a person has to decide."""

    exit_code = 5
