"""Stand-ins for the command lines of agents: each checks how it is started, uses bd, and streams as the real one."""

import stat
import sys
from pathlib import Path

PROGRAM = """\
import json, os, subprocess, sys, time
from datetime import datetime, timezone

AGENT, HERE = os.path.basename(sys.argv[0]), os.path.dirname(sys.argv[0])
if sys.argv[1:] == ["--version"]:
    sys.exit(print({"claude": "2.1.34 (Claude Code)", "codex": "codex-cli 0.147.0"}.get(AGENT, "1.2.3")))
BEAD, JOB, prompt = os.environ["BEAD_ID"], os.environ["BDAUTO_JOB"], sys.stdin.read()
assert BEAD in prompt and "bd close" in prompt, prompt


def bd(*words):
    subprocess.run([os.environ["BD"], *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def say(**value):
    print(json.dumps(value), flush=True)


def stamp():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def noted():
    shown = subprocess.run([os.environ["BD"], "show", BEAD, "--json"], capture_output=True)
    return b"dispatched: job=" in shown.stdout


while not noted():
    time.sleep(0.1)
"""

SIGNS = """
bd("note", BEAD, f"claimed by agent {JOB}")
"""

CLAUDE = f"""{PROGRAM}
assert sys.argv[1:3] == ["-p", "--output-format"] and "Bash(bd:*)" in " ".join(sys.argv), sys.argv
say(type="system", subtype="init", session_id="c-1", model="claude-haiku", tools=["Bash"])
note = {{"type": "tool_use", "id": "t1", "name": "Bash", "input": {{"command": f"bd note {{BEAD}} hello"}}}}
say(type="assistant", message={{"role": "assistant", "content": [note]}}, session_id="c-1"){SIGNS}
limits = os.path.join(HERE, "limit")
if os.path.exists(limits):
    at = int(open(limits).read())
    info = {{"status": "rejected", "resetsAt": at, "rateLimitType": "five_hour"}}
    say(type="rate_limit_event", rate_limit_info=info, uuid="u", session_id="c-1")
    say(type="result", subtype="success", is_error=True, api_error_status=429, duration_ms=900, num_turns=2,
        result="You've hit your limit", session_id="c-1", total_cost_usd=0.03, usage={{}}, permission_denials=[])
    sys.exit(1)
while os.path.exists(os.path.join(HERE, "wait")):
    time.sleep(0.05)
bd("close", BEAD, "--reason", "done")
usage = {{"input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 5}}
say(type="result", subtype="success", is_error=False, duration_ms=61000, num_turns=7, result="Wrote the haiku.",
    session_id="c-1", total_cost_usd=0.1234, usage=usage, permission_denials=[])
"""

CODEX = f"""{PROGRAM}
assert sys.argv[1:3] == ["exec", "--json"] and sys.argv[-1] == "-", sys.argv
say(type="thread.started", thread_id="0199-codex")
say(type="turn.started")
say(type="item.started", item={{"id": "i0", "type": "command_execution", "command": "bd note"}}){SIGNS}
say(type="item.completed", item={{"id": "i0", "type": "command_execution", "command": "bd note", "exit_code": 0}})
bd("close", BEAD, "--reason", "done")
say(type="item.completed", item={{"id": "i1", "type": "agent_message", "text": "The haiku is written."}})
say(type="turn.completed", usage={{"input_tokens": 900, "cached_input_tokens": 800, "output_tokens": 50}})
"""

GEMINI = f"""{PROGRAM}
assert "stream-json" in sys.argv and "run_shell_command(bd)" in " ".join(sys.argv), sys.argv
say(type="init", timestamp=stamp(), session_id="g-1", model="gemini-3-pro")
say(type="message", timestamp=stamp(), role="user", content=prompt)
given = {{"command": "bd note"}}
say(type="tool_use", timestamp=stamp(), tool_name="run_shell_command", tool_id="t1", parameters=given){SIGNS}
say(type="tool_result", timestamp=stamp(), tool_id="t1", status="success", output="ok")
bd("close", BEAD, "--reason", "done")
say(type="message", timestamp=stamp(), role="assistant", content="The haiku ", delta=True)
say(type="message", timestamp=stamp(), role="assistant", content="is done.", delta=True)
stats = {{"total_tokens": 1200, "duration_ms": 30000, "tool_calls": 1}}
say(type="result", timestamp=stamp(), status="success", stats=stats)
"""

OPENCODE = f"""{PROGRAM}
assert sys.argv[1:4] == ["run", "--format", "json"], sys.argv


def event(kind, **part):
    say(type=kind, timestamp=int(time.time() * 1000), sessionID="ses_1", part=part)


event("step_start")
state = {{"status": "completed", "input": {{"command": "bd note"}}}}
event("tool_use", tool="bash", callID="c1", state=state){SIGNS}
event("step_finish", reason="tool-calls", cost=0.01, tokens={{"input": 100, "output": 10, "reasoning": 0}})
while os.path.exists(os.path.join(HERE, "spend")):
    event("step_finish", reason="tool-calls", cost=0.4, tokens={{"input": 100, "output": 10, "reasoning": 0}})
    time.sleep(0.1)
bd("close", BEAD, "--reason", "done")
event("text", text="All done.")
event("step_finish", reason="stop", cost=0.025, tokens={{"input": 5, "output": 5, "cache": {{"read": 80}}}})
"""
STUBS = {"claude": CLAUDE, "codex": CODEX, "gemini": GEMINI, "opencode": OPENCODE}


def install(folder: Path) -> Path:
    """Write the stand-ins into a folder for PATH, and return it. Files `limit`, `wait`, `spend` in it change them."""
    folder.mkdir()
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(stat.S_IRWXU)
    return folder
