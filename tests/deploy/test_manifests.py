"""The manifests: valid for Kubernetes, and exactly the workloads that bdauto's predecessor had, hardened."""

import json
from typing import Any

import kubernetes_validate
import pytest

from bdauto.agents.beadboard.settings import BeadBoardSettings
from bdauto.domain.values import parse_duration
from tests.support.manifests import OVERLAYS, Object, pod_spec, render, workloads

CRON_JOBS = {
    "beads-dispatcher": ("*/2 * * * *", ["bdauto", "dispatch"]),
    "beads-reaper": ("*/10 * * * *", ["bdauto", "reap", "--threshold", "30m"]),
}


def by_name(objects: list[Object], kind: str) -> dict[str, Object]:
    """Return the objects of one kind by their names."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def environment(container: Object) -> dict[str, Any]:
    """Return a container's own variables: name → text, or the reference it comes from."""
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", ["1.27", "1.32", kubernetes_validate.latest_version()])
def test_objects_fit_the_kubernetes_schemas(overlay: str, version: str) -> None:
    for item in render(overlay):
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_in_one_namespace_that_is_not_ours(overlay: str) -> None:
    objects = render(overlay)
    assert {item["metadata"]["namespace"] for item in objects} == {"beads-server"}
    assert not by_name(objects, "Namespace"), "deleting the objects must not delete the database"


@pytest.mark.parametrize("overlay", ["base", "overlays/suspended"])
@pytest.mark.parametrize("name", CRON_JOBS)
def test_cron_job_is_as_specified(overlay: str, name: str) -> None:
    cron_jobs = by_name(render(overlay), "CronJob")
    assert set(cron_jobs) == set(CRON_JOBS)
    spec = cron_jobs[name]["spec"]
    job = spec["jobTemplate"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    schedule, command = CRON_JOBS[name]

    assert spec["schedule"] == schedule
    assert spec["suspend"] is (overlay == "overlays/suspended")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] == 60
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)
    assert job["backoffLimit"] == 0
    assert job["ttlSecondsAfterFinished"] == 600
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert container["command"] == command
    assert "args" not in container
    assert environment(container)["BEADS_ACTOR"] == name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_container_has_its_settings_and_its_limits(overlay: str) -> None:
    objects = render(overlay)
    config_maps = by_name(objects, "ConfigMap")
    for workload in workloads(objects):
        pod = pod_spec(workload)
        [container] = pod["containers"]
        env = environment(container)
        assert env["HOME"] == "/tmp"
        assert env["BDAUTO_METADATA"] == "/etc/beads-metadata/metadata.json"
        [settings] = container["envFrom"]
        assert {"BEADBOARD_URL", "BDAUTO_AGENT_URL"} <= set(config_maps[settings["configMapRef"]["name"]]["data"])
        assert container["resources"] == {
            "requests": {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": "256Mi"},
        }

        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        metadata = mounts["/etc/beads-metadata"]
        assert metadata["readOnly"] is True
        content = config_maps[volumes[metadata["name"]]["configMap"]["name"]]["data"]["metadata.json"]
        assert json.loads(content)["dolt_mode"] == "server"
        assert volumes[mounts["/tmp"]["name"]]["emptyDir"]["medium"] == "Memory", "an idle bdauto writes to no disk"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_token_is_a_file_and_in_no_variable(overlay: str) -> None:
    for workload in workloads(render(overlay)):
        pod = pod_spec(workload)
        [container] = pod["containers"]
        [mount] = (mount for mount in container["volumeMounts"] if mount["name"] == "agent-token")
        [volume] = (volume for volume in pod["volumes"] if volume["name"] == "agent-token")
        [item] = volume["secret"]["items"]
        assert mount["readOnly"] is True
        assert environment(container)["BDAUTO_AGENT_TOKEN_FILE"] == f"{mount['mountPath']}/{item['path']}"
        assert (volume["secret"]["secretName"], item["key"]) == ("beads-agent", "api-bearer-token")
        assert "API_BEARER_TOKEN" not in environment(container)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_container_may_do_nothing_it_does_not_need(overlay: str) -> None:
    for workload in workloads(render(overlay)):
        pod = pod_spec(workload)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_termination_outlasts_an_http_request(overlay: str) -> None:
    for workload in workloads(render(overlay)):
        grace = pod_spec(workload)["terminationGracePeriodSeconds"]
        assert grace > BeadBoardSettings().timeout.total_seconds()


def test_suspending_changes_nothing_else() -> None:
    suspended = render("overlays/suspended")
    for cron_job in by_name(suspended, "CronJob").values():
        assert cron_job["spec"]["suspend"] is True
        cron_job["spec"]["suspend"] = False
    assert suspended == render("base")


def test_run_replaces_the_cron_jobs() -> None:
    objects = render("overlays/run")
    assert not by_name(objects, "CronJob")
    deployment = by_name(objects, "Deployment")["bdauto"]
    [container] = pod_spec(deployment)["containers"]
    assert container["command"][:2] == ["bdauto", "run"]
    for option in ("--dispatch-every", "--reap-every", "--threshold"):
        parse_duration(container["command"][container["command"].index(option) + 1])
    images = {pod_spec(item)["containers"][0]["image"] for item in workloads(objects) + workloads(render("base"))}
    assert len(images) == 1, "both modes run the same image"


def test_run_is_probed_and_scraped_where_it_listens() -> None:
    objects = render("overlays/run")
    deployment = by_name(objects, "Deployment")["bdauto"]
    [container] = pod_spec(deployment)["containers"]
    [port] = container["ports"]
    assert environment(container)["BDAUTO_LISTEN"] == f"0.0.0.0:{port['containerPort']}"
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}

    labels = deployment["spec"]["template"]["metadata"]["labels"]
    service = by_name(objects, "Service")["bdauto"]["spec"]
    assert service["selector"].items() <= labels.items()
    assert service["ports"][0]["targetPort"] == port["name"]
    assert service["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policy_covers_every_pod_both_ways(overlay: str) -> None:
    objects = render(overlay)
    policy = by_name(objects, "NetworkPolicy")["bdauto"]["spec"]
    for workload in workloads(objects):
        spec = workload["spec"]["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else workload["spec"]
        assert policy["podSelector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "metrics"}]]
    metadata = next(item for name, item in by_name(objects, "ConfigMap").items() if name.startswith("beads-metadata"))
    dolt_port = json.loads(metadata["data"]["metadata.json"])["dolt_server_port"]
    assert dolt_port in {port["port"] for rule in policy["egress"] for port in rule["ports"]}
