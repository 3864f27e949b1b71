"""Stand-ins for the command lines of agents: each checks how it is started, uses bd, and streams as the real one."""

import stat
import sys
from pathlib import Path

PROGRAM = """\
import hashlib, json, os, subprocess, sys, time
from datetime import datetime, timezone

AGENT, HERE = os.path.basename(sys.argv[0]), os.path.dirname(sys.argv[0])
if sys.argv[1:] == ["--version"]:
    sys.exit(print({"claude": "2.1.34 (Claude Code)", "codex": "codex-cli 0.147.0"}.get(AGENT, "1.2.3")))
BEAD, JOB, prompt = os.environ["BEAD_ID"], os.environ["BDAUTO_JOB"], sys.stdin.read()
assert BEAD in prompt and ("bd close" in prompt or "Do not close the bead" in prompt), prompt
OPTION = {"claude": "--resume", "codex": "resume", "gemini": "--resume", "opencode": "--session"}[AGENT]
RESUMED = sys.argv[sys.argv.index(OPTION) + 1] if OPTION in sys.argv else ""
PREFIX = {"claude": "c-", "codex": "0199-", "gemini": "g-", "opencode": "ses_"}[AGENT]
KEEPS = os.path.exists(os.path.join(HERE, "keeps"))
NAME = RESUMED or (PREFIX + JOB if KEEPS else {"codex": "0199-codex"}.get(AGENT, f"{PREFIX}1"))
PLACES = {
    "claude": ".claude/projects/%s/{name}.jsonl" % "".join(c if c.isalnum() else "-" for c in os.getcwd()),
    "codex": ".codex/sessions/2026/11/30/rollout-2026-11-30T10-00-00-{name}.jsonl",
    "gemini": ".gemini/tmp/%s/chats/session-2026-11-30T10-00-{name:.8}.jsonl"
    % hashlib.sha256(os.getcwd().encode()).hexdigest(),
    "opencode": ".local/share/opencode/storage/session/project/{name}.json",
}
TRANSCRIPT = os.path.join(os.environ["HOME"], PLACES[AGENT].format(name=NAME))
REFUSAL, STATUS = {
    "claude": ("No conversation found with session ID: ", 1),
    "codex": ("Error: thread/resume: thread/resume failed: no rollout found for thread id ", 1),
    "gemini": ("Error resuming session: Invalid session identifier ", 42),
    "opencode": ("NotFoundError: Session not found: ", 0),
}[AGENT]
with open(os.path.join(HERE, "starts"), "a") as file:
    print(json.dumps({"words": sys.argv[1:], "prompt": prompt, "session": RESUMED}), file=file)
if RESUMED and (os.path.exists(os.path.join(HERE, "refuses")) or not os.path.exists(TRANSCRIPT)):
    print(REFUSAL + RESUMED, file=sys.stderr)
    sys.exit(STATUS)
if KEEPS:
    os.makedirs(os.path.dirname(TRANSCRIPT), exist_ok=True)
    with open(TRANSCRIPT, "a") as file:
        print(json.dumps({"sessionId": NAME, "cwd": os.getcwd()}), file=file)


def bd(*words):
    subprocess.run([os.environ["BD"], *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def say(**value):
    print(json.dumps(value), flush=True)


def stamp():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def noted():
    shown = subprocess.run([os.environ["BD"], "show", BEAD, "--json"], capture_output=True)
    return f"dispatched: job={JOB}".encode() in shown.stdout


while not noted():
    time.sleep(0.1)


def does():
    "Do what the test wants, in place of the work. Return the status to end with, None to go on."
    script = os.path.join(HERE, "does")
    if not os.path.exists(script):
        return None
    return subprocess.run(["sh", "-c", open(script).read()], stdout=sys.stderr).returncode
"""

SIGNS = """
bd("note", BEAD, f"claimed by agent {JOB}")
failed = does()
"""

CLAUDE = f"""{PROGRAM}
assert sys.argv[1:3] == ["-p", "--output-format"] and "Bash(bd:*)" in " ".join(sys.argv), sys.argv
say(type="system", subtype="init", session_id=NAME, model="claude-haiku", tools=["Bash"])
note = {{"type": "tool_use", "id": "t1", "name": "Bash", "input": {{"command": f"bd note {{BEAD}} hello"}}}}
say(type="assistant", message={{"role": "assistant", "content": [note]}}, session_id=NAME){SIGNS}
if failed:
    say(type="result", subtype="success", is_error=True, api_error_status=failed * 10, duration_ms=900, num_turns=2,
        result=f"API Error: {{failed * 10}}", session_id=NAME, total_cost_usd=0.03, usage={{}}, permission_denials=[])
    sys.exit(1)
if failed == 0:
    say(type="result", subtype="success", is_error=False, duration_ms=900, num_turns=2, result="I ask.",
        session_id=NAME, total_cost_usd=0.03, usage={{}}, permission_denials=[])
    sys.exit()
limits = os.path.join(HERE, "limit")
if os.path.exists(limits):
    at = int(open(limits).read())
    info = {{"status": "rejected", "resetsAt": at, "rateLimitType": "five_hour"}}
    say(type="rate_limit_event", rate_limit_info=info, uuid="u", session_id=NAME)
    say(type="result", subtype="success", is_error=True, api_error_status=429, duration_ms=900, num_turns=2,
        result="You've hit your limit", session_id=NAME, total_cost_usd=0.03, usage={{}}, permission_denials=[])
    sys.exit(1)
while os.path.exists(os.path.join(HERE, "wait")):
    time.sleep(0.05)
bd("close", BEAD, "--reason", "done")
usage = {{"input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100, "output_tokens": 5}}
say(type="result", subtype="success", is_error=False, duration_ms=61000, num_turns=7, result="Wrote the haiku.",
    session_id=NAME, total_cost_usd=0.1234, usage=usage, permission_denials=[])
"""

CODEX = f"""{PROGRAM}
assert sys.argv[1:3] == ["exec", "--json"] and sys.argv[-1] == "-", sys.argv
say(type="thread.started", thread_id=NAME)
say(type="turn.started")
say(type="item.started", item={{"id": "i0", "type": "command_execution", "command": "bd note"}}){SIGNS}
say(type="item.completed", item={{"id": "i0", "type": "command_execution", "command": "bd note", "exit_code": 0}})
if failed:
    say(type="turn.failed", error={{"message": f"status {{failed * 10}}: overloaded"}})
    sys.exit(1)
bd("close", BEAD, "--reason", "done")
say(type="item.completed", item={{"id": "i1", "type": "agent_message", "text": "The haiku is written."}})
say(type="turn.completed", usage={{"input_tokens": 900, "cached_input_tokens": 800, "output_tokens": 50}})
"""

GEMINI = f"""{PROGRAM}
assert "stream-json" in sys.argv and "run_shell_command(bd)" in " ".join(sys.argv), sys.argv
say(type="init", timestamp=stamp(), session_id=NAME, model="gemini-3-pro")
say(type="message", timestamp=stamp(), role="user", content=prompt)
given = {{"command": "bd note"}}
say(type="tool_use", timestamp=stamp(), tool_name="run_shell_command", tool_id="t1", parameters=given){SIGNS}
say(type="tool_result", timestamp=stamp(), tool_id="t1", status="success", output="ok")
if failed:
    error = {{"type": "ApiError", "message": f"status {{failed * 10}}: overloaded"}}
    say(type="result", timestamp=stamp(), status="error", error=error, stats={{"total_tokens": 100}})
    sys.exit(1)
bd("close", BEAD, "--reason", "done")
say(type="message", timestamp=stamp(), role="assistant", content="The haiku ", delta=True)
say(type="message", timestamp=stamp(), role="assistant", content="is done.", delta=True)
stats = {{"total_tokens": 1200, "duration_ms": 30000, "tool_calls": 1}}
say(type="result", timestamp=stamp(), status="success", stats=stats)
"""

OPENCODE = f"""{PROGRAM}
assert sys.argv[1:4] == ["run", "--format", "json"], sys.argv


def event(kind, **part):
    say(type=kind, timestamp=int(time.time() * 1000), sessionID=NAME, part=part)


event("step_start")
state = {{"status": "completed", "input": {{"command": "bd note"}}}}
event("tool_use", tool="bash", callID="c1", state=state){SIGNS}
event("step_finish", reason="tool-calls", cost=0.01, tokens={{"input": 100, "output": 10, "reasoning": 0}})
if failed:
    say(type="error", sessionID=NAME, error={{"data": {{"message": "no", "statusCode": failed * 10}}}})
    sys.exit(1)
while os.path.exists(os.path.join(HERE, "spend")):
    event("step_finish", reason="tool-calls", cost=0.4, tokens={{"input": 100, "output": 10, "reasoning": 0}})
    time.sleep(0.1)
bd("close", BEAD, "--reason", "done")
event("text", text="All done.")
event("step_finish", reason="stop", cost=0.025, tokens={{"input": 5, "output": 5, "cache": {{"read": 80}}}})
"""
STUBS = {"claude": CLAUDE, "codex": CODEX, "gemini": GEMINI, "opencode": OPENCODE}


def install(folder: Path) -> Path:
    """Write the stand-ins into a folder for PATH, and return it.

    Files `limit`, `wait`, `spend`, `does`, `keeps` (their sessions) and `refuses` (to resume one) in it change them.
    They list in `starts` how they were started.
    """
    folder.mkdir()
    for name, text in STUBS.items():
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(stat.S_IRWXU)
    return folder
