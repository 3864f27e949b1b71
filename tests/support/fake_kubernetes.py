"""A stand-in for the Kubernetes API and its Job controller, held to the same contract suite as the real ones.

It knows what bdauto asks for. What a kubelet would do is done by calls of its methods.
"""

import copy
import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

Object = dict[str, Any]
NAMESPACE = "beads"
ENTRY = ["bdauto", "agent-entry", "--", "agent"]


def template(**spec: Any) -> Object:
    """Return a suspended CronJob that bdauto accepts, with these fields in its Job's spec."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "agent", "image": "agent:1", "command": [*ENTRY]}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "agent", "uid": "11111111-2222-3333-4444-555555555555"},
        "spec": {
            "suspend": True,
            "schedule": "0 0 31 2 *",
            "jobTemplate": {"metadata": {}, "spec": {"template": {"metadata": {}, "spec": pod}, **spec}},
        },
    }


class Failure(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": words}


class FakeKubernetes:
    """The API of one namespace. `before` and `after` are called with method and path of a request, and may raise.

    `refuse` is the answer to each creation, to the first `refusals` of them, or to all. `garbage` is every answer.
    While it is `frozen`, its controllers do nothing.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self.cron_jobs: dict[str, Object] = {"agent": template()}
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.events: list[Object] = []
        self.quotas: list[Object] = []
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.denied: set[str] = set()
        self.pods_allowed = 1000
        self.refuse: Failure | None = None
        self.refusals = -1
        self.garbage = ""
        self.frozen = False
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.after: Callable[[str, str], None] = lambda _method, _path: None
        self._lock = threading.Lock()

    def transport(self) -> httpx2.MockTransport:
        """Return what replaces the network of lightkube."""

        def answer(request: httpx2.Request) -> httpx2.Response:
            url = urlsplit(str(request.url))
            status, body = self.answer(request.method, url.path, url.query, request.content)
            text = body if isinstance(body, str) else json.dumps(body)
            kind = "text/plain" if isinstance(body, str) else "application/json"
            return httpx2.Response(status, text=text, headers={"Content-Type": kind})

        return httpx2.MockTransport(answer)

    def answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Object | str]:
        """Return the status and the body of the answer to one request."""
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        self.before(method, path)
        with self._lock:
            self.requests.append((method, path))
            self._control()
            try:
                found = self._route(method, path, asked, json.loads(body) if body else {})
            except Failure as failure:
                return failure.code, failure.body
            self._control()
            found = found if isinstance(found, str) else copy.deepcopy(found)
        self.after(method, path)
        return (201 if method == "POST" else 200), found

    def _route(self, method: str, path: str, asked: Object, body: Object) -> Object | str:
        parts = path.strip("/").split("/")
        if "selfsubjectaccessreviews" in parts:
            wanted = body["spec"]["resourceAttributes"]
            return {"status": {"allowed": f"{wanted['verb']} {wanted['resource']}" not in self.denied}}
        kind, name = parts[parts.index("namespaces") + 2], parts[parts.index("namespaces") + 3 :]
        verb = {"POST": "create", "PATCH": "patch", "GET": "get" if name else "list"}[method]
        if f"{verb} {kind}" in self.denied:
            raise Failure(403, "Forbidden", f'{kind} is forbidden: User "u" cannot {verb} resource "{kind}"')
        if self.garbage:
            return self.garbage
        if verb == "create":
            if self.refuse and self.refusals:
                self.refusals -= 1
                raise self.refuse
            return self._create(body, dry_run="dryRun" in asked)
        if name and name[-1] == "log":
            lines = self.logs.get(name[0], [])
            if name[0] not in self.pods:
                raise Failure(404, "NotFound", f'pods "{name[0]}" not found')
            lines = lines[-int(asked["tailLines"]) :] if "tailLines" in asked else lines
            return "".join(f"{at} {text}\n" for at, text in lines)
        store = {"cronjobs": self.cron_jobs, "jobs": self.jobs, "pods": self.pods}.get(kind, {})
        if verb == "list":
            items = {"events": self.events, "resourcequotas": self.quotas}.get(kind, [*store.values()])
            return {"kind": "List", "metadata": {}, "items": [one for one in items if _selected(one, asked)]}
        if name[0] not in store:
            raise Failure(404, "NotFound", f'{kind} "{name[0]}" not found')
        if verb == "patch":
            _merge(store[name[0]], body)
        return store[name[0]]

    def _create(self, job: Object, *, dry_run: bool) -> Object:
        name, spec = job["metadata"]["name"], job["spec"]
        if name in self.jobs:
            raise Failure(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
        for container in spec["template"]["spec"]["containers"]:
            if not container.get("image"):
                raise Failure(422, "Invalid", f'Job.batch "{name}" is invalid: containers[0].image: Required value')
        now = _written(self.now())
        job = copy.deepcopy(job)
        job["metadata"] |= {"creationTimestamp": now, "uid": str(uuid.uuid4()), "namespace": NAMESPACE}
        job["status"] = {}
        if not dry_run:
            self.jobs[name] = job
        return job

    def _control(self) -> None:
        """Do what the Job and the TTL controllers do."""
        now = self.now()
        of_jobs: dict[str, list[Object]] = {}
        for pod in self.pods.values():
            of_jobs.setdefault(_job_of(pod), []).append(pod)
        for name, job in [] if self.frozen else [*self.jobs.items()]:
            spec, status = job["spec"], job["status"]
            if _finished(job):
                ttl = spec.get("ttlSecondsAfterFinished")
                if ttl is not None and now - _time(status["finished"]) >= timedelta(seconds=ttl):
                    del self.jobs[name]
                    self.pods = {pod: one for pod, one in self.pods.items() if _job_of(one) != name}
                continue
            if spec.get("suspend"):
                continue
            status.setdefault("startTime", _written(now))
            if spec["completions"] == 0:
                _end(job, "Complete", "CompletionsReached", now)
                continue
            deadline = spec.get("activeDeadlineSeconds")
            if deadline is not None and now - _time(status["startTime"]) >= timedelta(seconds=deadline):
                self.pods = {pod: one for pod, one in self.pods.items() if _job_of(one) != name}
                _end(job, "Failed", "DeadlineExceeded", now)
                continue
            self._pods_of(name, job, of_jobs.get(name, []), now)

    def _pods_of(self, name: str, job: Object, own: list[Object], now: datetime) -> None:
        status = job["status"]
        phases = [pod["status"]["phase"] for pod in own]
        if not own and status.get("had"):
            _end(job, "Failed", "BackoffLimitExceeded", now)
        elif "Succeeded" in phases:
            _end(job, "Complete", "CompletionsReached", now)
        elif phases and all(phase == "Failed" for phase in phases):
            _end(job, "Failed", "BackoffLimitExceeded", now)
        elif not own and job["spec"]["parallelism"]:
            alive = sum(pod["status"]["phase"] in ("Pending", "Running") for pod in self.pods.values())
            if alive >= self.pods_allowed:
                words = "Error creating: pods is forbidden: exceeded quota: pods"
                about = {"kind": "Job", "name": name}
                self.events.append(
                    {"type": "Warning", "reason": "FailedCreate", "message": words, "involvedObject": about}
                )
                return
            made = copy.deepcopy(job["spec"]["template"])
            pod = f"{name}-{uuid.uuid4().hex[:5]}"
            metadata = {**made["metadata"], "name": pod, "uid": str(uuid.uuid4())}
            metadata["labels"] = {**metadata["labels"], "batch.kubernetes.io/job-name": name}
            self.pods[pod] = {"metadata": metadata, "spec": made["spec"], "status": {"phase": "Pending"}}
            status |= {"had": True, "active": 1, "ready": 0}
        else:
            status["ready"] = phases.count("Running")

    def pod_names(self, attempt: str) -> list[str]:
        """Return the names of an attempt's pods."""
        return [name for name, pod in self.pods.items() if _job_of(pod) == f"bdauto-{attempt}"]

    def all_pods(self) -> list[Object]:
        """Return a copy of every pod."""
        with self._lock:
            self._control()
            return copy.deepcopy([*self.pods.values()])

    def all_jobs(self) -> list[Object]:
        """Return a copy of every Job."""
        with self._lock:
            self._control()
            return copy.deepcopy([*self.jobs.values()])

    def write_pod(self, pod: str, status: Object) -> None:
        """Merge this into a pod's status, as a kubelet does."""
        with self._lock:
            _merge(self.pods[pod]["status"], status)
            self._control()

    def delete_pod(self, pod: str) -> None:
        """Delete a pod."""
        with self._lock:
            del self.pods[pod]
            self._control()

    def serve(self) -> "Served":
        """Serve it on loopback."""
        return Served(self)


class Served:
    """A stand-in on loopback. `down` makes it close each connection without an answer."""

    def __init__(self, api: FakeKubernetes) -> None:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the client to confirm its head

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if served.down:
                    self.close_connection = True
                    return
                url = urlsplit(self.path)
                status, found = api.answer(self.command, url.path, url.query, body)
                text = (found if isinstance(found, str) else json.dumps(found)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = _do

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.down = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kubeconfig(self) -> Object:
        """Return a kubeconfig for it."""
        server = f"http://127.0.0.1:{self._server.server_port}"
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": server}}],
            "users": [{"name": "fake", "user": {"token": "a-token"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": NAMESPACE}}],
            "current-context": "fake",
        }

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _selected(one: Object, asked: Object) -> bool:
    labels = one.get("metadata", {}).get("labels", {})
    for term in filter(None, asked.get("labelSelector", "").split(",")):
        name, _, value = term.partition("=")
        if (term[0] == "!" and term[1:] in labels) or (term[0] != "!" and labels.get(name) != value):
            return False
    for term in filter(None, asked.get("fieldSelector", "").split(",")):
        name, _, value = term.partition("!=" if "!=" in term else "=")
        found: Any = one
        for part in name.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        if (found == value) == ("!=" in term):
            return False
    return True


def _merge(old: Object, patch: Object) -> None:
    for name, value in patch.items():
        if value is None:
            old.pop(name, None)
        elif isinstance(value, dict) and isinstance(old.get(name), dict):
            _merge(old[name], value)
        else:
            old[name] = copy.deepcopy(value)


def _end(job: Object, condition: str, reason: str, now: datetime) -> None:
    told = {"type": condition, "status": "True", "reason": reason, "message": "", "lastTransitionTime": _written(now)}
    job["status"] |= {"conditions": [told], "finished": _written(now), "active": 0, "ready": 0}


def _finished(job: Object) -> bool:
    return bool(job["status"].get("conditions"))


def _job_of(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get("batch.kubernetes.io/job-name"))


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
