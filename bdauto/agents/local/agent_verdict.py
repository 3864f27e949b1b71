"""Whether a job's agent says that it has done its work: a program, run as `PROGRAM JOBS` before the work is landed.

An agent that ran into a limit may end with exit status 0. The supervisor does not read what agents say.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from bdauto.agents.local.job_output import said_end
from bdauto.domain.record import Result
from bdauto.domain.results import told_end

PROGRAM = [
    *(sys.executable, "-I", "-c"),
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from bdauto.agents.local.agent_verdict import main; sys.exit(main())",
    str(Path(__file__).parents[3]),
]


def main() -> int:
    """Print why the agent has failed in its own words. Return the exit status."""
    now = datetime.now(UTC)
    end = told_end(Result.completed, now, said_end(Path(sys.argv[1]) / os.environ["BDAUTO_JOB"], now, failed=False))
    if end.result is Result.completed:
        return 0
    sys.stdout.write(f"the agent says that it has failed ({end.why}): {end.words}\n")
    return 1
