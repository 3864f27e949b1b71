"""How a command reports and logs."""

from typing import Annotated

import msgspec

from bdauto.common.log import LogFormat
from bdauto.domain.settings import OUTPUT, Option


class OutputSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a command reports and logs."""

    json: Annotated[bool, Option("Print one JSON object on stdout.", OUTPUT)] = False
    log_format: Annotated[
        LogFormat | None,
        Option("Format of the log on stderr. (default: text on a terminal, else keyvalue)", OUTPUT),
    ] = None
    verbose: Annotated[bool, Option("Log each step.", OUTPUT, short="-v")] = False
