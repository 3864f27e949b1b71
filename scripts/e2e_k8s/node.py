"""Takes the kubelet's place: runs a Pod's container on this machine and reports how it ended.

The container gets the command line, the environment and the mounts that the API server has for it, in a mount namespace
with a read-only root. It runs as the user who runs this script, without limits.
"""

import base64
import json
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sh

from bdauto.sandbox import Sandbox
from scripts.e2e_k8s.control_plane import ControlPlane, Object
from scripts.e2e_k8s.reporting import say

ROOT = Path(__file__).parents[2]


class Node:
    """Runs Pods against the services of a sandbox."""

    def __init__(self, plane: ControlPlane, sandbox: Sandbox) -> None:
        self.plane = plane
        self.sandbox = sandbox

    def start(self, pod: Object) -> Any:
        """Start the Pod's only container and return sh's running command."""
        [container] = pod["spec"]["containers"]
        env = self._environment(pod, container)
        say(f"   pod {pod['metadata']['name']}: {shlex.join(container['command'])}")
        say(f"   environment: {' '.join(sorted(env))}; mounts: {' '.join(_mounts(container))}")
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        script = self._mount_script(pod, container)
        return sh.Command(self.plane.programs["UNSHARE"])(
            *["--mount", *as_root, "sh", "-euc", script, "sh", *container["command"]],
            _env={**env, "PATH": f"{Path(sys.executable).parent}:{self.sandbox.bd_path.parent}:/usr/bin:/bin"},
            _ok_code=list(range(-64, 256)),
            _tty_out=False,
            _bg=True,
            _bg_exc=False,
        )

    def run(self, pod: Object) -> int:
        """Run the Pod to its end, show what it printed, report its phase, and return the exit status."""
        process = self.start(pod)
        try:
            process.wait(timeout=pod["spec"].get("activeDeadlineSeconds", 120))
        finally:
            if process.is_alive():
                process.kill()
        for line in (process.stdout + process.stderr).decode().splitlines():
            say(f"   | {line}")
        say(f"   exit status {process.exit_code}")
        status = json.dumps({"status": {"phase": "Succeeded" if process.exit_code == 0 else "Failed"}})
        self.plane.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "-p", status)
        return int(process.exit_code)

    def _environment(self, pod: Object, container: Object) -> dict[str, str]:
        """Resolve the container's variables from the ConfigMaps, Secrets and fields that they name."""
        env: dict[str, str] = {}
        for source in container.get("envFrom", []):
            env |= {key: value.decode() for key, value in self._content("configmap", source["configMapRef"]).items()}
        for item in container["env"]:
            value = self._value(pod, item)
            if value is not None:
                env[item["name"]] = value
        if "BDAUTO_LISTEN" in env:  # a Pod has an address of its own; here it would be this machine's
            env["BDAUTO_LISTEN"] = env["BDAUTO_LISTEN"].replace("0.0.0.0", "127.0.0.1")
        return env

    def _value(self, pod: Object, item: Object) -> str | None:
        if "valueFrom" not in item:
            return str(item.get("value", ""))
        if "fieldRef" in item["valueFrom"]:
            section, _, field = item["valueFrom"]["fieldRef"]["fieldPath"].partition(".")
            return str(pod[section][field])
        reference = item["valueFrom"]["secretKeyRef"]
        content = self._content("secret", reference)
        if reference["key"] not in content and not reference.get("optional"):
            sys.exit(f"FAILED: the Secret has no {reference['key']}")
        return content[reference["key"]].decode() if reference["key"] in content else None

    def _content(self, kind: str, reference: Object) -> dict[str, bytes]:
        """Return what a ConfigMap or Secret holds, as files: of a Secret's volume only the items that it names."""
        name = reference.get("name") or reference["secretName"]
        found = self.plane.read(kind, name)
        if found is None and not reference.get("optional"):
            sys.exit(f"FAILED: there is no {kind} {name}")
        data = (found or {}).get("data", {})
        content = {key: base64.b64decode(text) if kind == "secret" else text.encode() for key, text in data.items()}
        if "items" not in reference:
            return content
        return {item["path"]: content[item["key"]] for item in reference["items"] if item["key"] in content}

    def _mount_script(self, pod: Object, container: Object) -> str:
        """Return the shell lines that mount the volumes, make the rest read-only, and become the command."""
        base = self.plane.folder / "pods" / pod["metadata"]["uid"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = _mounts(container)
        lines = [f"mount --bind {self.sandbox.folder} {self.sandbox.folder}", *_mount_points(mounts, base)]
        for path, mount in mounts.items():
            content, volume = base / mount["name"], volumes[mount["name"]]
            content.mkdir(parents=True)
            for kind in ("configMap", "secret"):
                for name, data in self._content(kind.lower(), volume[kind]).items() if kind in volume else ():
                    (content / name).write_bytes(data)
            hides_us = ROOT.is_relative_to(path)
            if hides_us:  # the program itself lies there: a checkout under /tmp, for example
                (base / "checkout").mkdir()
                lines.append(f"mount --bind {ROOT} {base / 'checkout'}")
            lines.append(_mount(volume, content, path))
            if hides_us:
                lines += [f"mkdir -p {ROOT}", f"mount --bind {base / 'checkout'} {ROOT}"]
            if mount.get("readOnly"):
                lines.append(f"mount -o remount,bind,ro {path}")
        if container["securityContext"]["readOnlyRootFilesystem"]:
            lines.append("mount -o remount,bind,ro /")
        return "\n".join([*lines, 'exec "$@"'])


def _mounts(container: Object) -> dict[str, Object]:
    return {mount["mountPath"]: mount for mount in container["volumeMounts"]}


def _mount(volume: Object, content: Path, path: str) -> str:
    """Return the shell line that mounts a volume: a piece of memory, or the folder with its content."""
    if volume.get("emptyDir", {}).get("medium") == "Memory":
        return f"mount -t tmpfs -o mode=1777,size={volume['emptyDir']['sizeLimit'].removesuffix('i')} tmpfs {path}"
    return f"mount --bind {content} {path}"


def _mount_points(paths: Iterable[str], base: Path) -> list[str]:
    """Return the shell lines that make missing mount points, without writing to the folders that they are in."""
    missing = [Path(path) for path in paths if not Path(path).is_dir()]
    lines = []
    for number, parent in enumerate({path.parent for path in missing}):
        upper, work = (base / f"parent-{number}" / name for name in ("upper", "work"))
        for folder in (upper, work):
            folder.mkdir(parents=True)
        lines.append(f"mount -t overlay overlay -o lowerdir={parent},upperdir={upper},workdir={work} {parent}")
    return lines + [f"mkdir {path}" for path in missing]
