"""The Helm chart, by helm itself where it is on PATH: the same objects as the manifests, and checked values."""

import os
import shlex
from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import sh
import yaml

from bdauto.agents.kubernetes.checks import RIGHTS
from bdauto.agents.kubernetes.settings import KubernetesSettings
from bdauto.agents.kubernetes.template import check_template
from scripts.e2e_k8s.comparison import meanings
from scripts.e2e_k8s.helm import ADDRESSES
from scripts.manifests import printed
from tests.support.manifests import CHART, HELM, ROOT, Object, pod_spec, render, render_chart, tool, workloads

IN_KUBERNETES = (ADDRESSES[2], "kubernetes.enabled=true", "kubernetes.image=agent:1")
MODES = {"mode=cronjob": "base", "mode=run": "overlays/run"}


def names(objects: list[Object]) -> set[tuple[str, str]]:
    """Return (kind, name) of each object."""
    return {(item["kind"], item["metadata"]["name"]) for item in objects}


def test_lint_finds_nothing() -> None:
    helm = tool("helm", HELM)
    helm("lint", "--strict", str(CHART), *(f"--set={value}" for value in ADDRESSES))


@pytest.mark.parametrize(("mode", "overlay"), MODES.items())
def test_chart_makes_the_same_objects_as_the_manifests(mode: str, overlay: str) -> None:
    assert meanings(render_chart(*ADDRESSES, mode)) == meanings(render(overlay))


def test_manifests_are_what_helm_prints() -> None:
    tool("helm", HELM)
    old = [path.name for path, text in printed() if path.read_text() != text]
    assert old == [], "the chart has changed: run `make manifests`"


def pod_labels(workload: Object) -> Object:
    """Return the labels of a workload's pods."""
    spec = workload["spec"]["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else workload["spec"]
    found: Object = spec["template"]["metadata"]["labels"]
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_objects_fit_the_kubernetes_schemas(mode: str, version: str) -> None:
    for item in render_chart(*ADDRESSES, mode):
        kubernetes_validate.validate(item, version, strict=True)


def test_kill_switch_keeps_the_objects() -> None:
    cron_jobs = render_chart(*ADDRESSES, "enabled=false")
    assert names(cron_jobs) == names(render_chart(*ADDRESSES))
    assert [item["spec"]["suspend"] for item in workloads(cron_jobs)] == [True, True]
    [deployment] = workloads(render_chart(*ADDRESSES, "mode=run", "enabled=false", "replicas=2"))
    assert deployment["spec"]["replicas"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_pods_are_placed_and_labelled_as_asked(mode: str) -> None:
    values = (
        "labels.team=tools",
        "annotations.note=hello",
        "resources.requests.cpu=10m",
        "nodeSelector.arch=arm64",
        "tolerations[0].key=dedicated",
        "tolerations[0].operator=Exists",
        "image.tag=latest",
        "image.pullPolicy=Always",
        "imagePullSecrets[0].name=registry-credentials",
        "agent.existingSecret=beadboard-agent-service",
        "agent.tokenKey=api_bearer_token",
    )
    objects = render_chart(*ADDRESSES, mode, *values)
    assert {item["metadata"]["labels"]["team"] for item in objects} == {"tools"}
    for workload in workloads(objects):
        pod = pod_spec(workload)
        [container] = pod["containers"]
        [secret] = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
        assert pod_labels(workload)["team"] == "tools"
        assert workload["metadata"]["annotations"] == {"note": "hello"}
        assert container["resources"]["requests"]["cpu"] == "10m"
        assert pod["nodeSelector"] == {"arch": "arm64"}
        assert pod["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
        assert (container["image"], container["imagePullPolicy"]) == ("bdauto:latest", "Always")
        assert pod["imagePullSecrets"] == [{"name": "registry-credentials"}]
        assert (secret["secretName"], secret["items"][0]["key"]) == ("beadboard-agent-service", "api_bearer_token")


def test_without_the_agent_service_no_secret_is_asked_for() -> None:
    for workload in workloads(render_chart(ADDRESSES[0], ADDRESSES[2])):
        assert not [volume for volume in pod_spec(workload)["volumes"] if "secret" in volume]
        assert "BDAUTO_AGENT_TOKEN_FILE" not in yaml.safe_dump(workload)


def test_the_agent_service_without_beadboard() -> None:
    objects = render_chart(*ADDRESSES[1:], "agent.name=reviewer")
    [settings] = [one["data"] for one in objects if one["metadata"]["name"].startswith("bdauto-settings")]
    assert settings["BDAUTO_AGENT_NAME"] == "reviewer"
    assert "BDAUTO_AGENT_URL" in settings
    assert "BEADBOARD_URL" not in settings
    for workload in workloads(objects):
        assert [volume for volume in pod_spec(workload)["volumes"] if "secret" in volume], "its token"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((ADDRESSES[2],), "nothing runs the agent: give beadboardUrl, or agent.url"),
        ((*ADDRESSES, *IN_KUBERNETES[1:]), "kubernetes.enabled excludes beadboardUrl and agent.url"),
        ((ADDRESSES[2], "kubernetes.enabled=true"), "kubernetes.image is missing"),
        ((*ADDRESSES, "agent.name=reviewer"), "agent.name has no effect with beadboardUrl"),
    ],
    ids=["nothing", "two kinds", "no image", "name beside BeadBoard"],
)
def test_a_combination_that_makes_no_sense_is_refused(values: tuple[str, ...], said: str) -> None:
    with pytest.raises(sh.ErrorReturnCode) as refusal:
        render_chart(*values)
    assert said in refusal.value.stderr.decode()


@pytest.mark.parametrize("mode", MODES)
def test_a_job_for_each_bead_has_its_template_and_exactly_its_rights(mode: str) -> None:
    objects = {(one["kind"], one["metadata"]["name"]): one for one in render_chart(*IN_KUBERNETES, mode)}
    rules = objects["Role", "bdauto"]["rules"]
    given = {f"{rule['apiGroups'][0]}/{rule['resources'][0]}": tuple(rule["verbs"]) for rule in rules}
    assert given == RIGHTS
    check_template(objects["CronJob", "bdauto-agent"], KubernetesSettings(kubernetes_template="bdauto-agent"))
    settings = objects["ConfigMap", "bdauto-settings"]["data"]
    assert settings["BDAUTO_KUBERNETES_TEMPLATE"] == "bdauto-agent"
    assert not [one for one in settings if one in ("BEADBOARD_URL", "BDAUTO_AGENT_URL")]
    for (_, name), workload in objects.items():
        if workload["kind"] in ("CronJob", "Deployment"):
            pod, own = pod_spec(workload), name != "bdauto-agent"
            assert pod["automountServiceAccountToken"] is own, "an agent has no rights"
            assert pod.get("serviceAccountName") == ("bdauto" if own else None)
    for one in objects.values():
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_labels_annotations_and_tolerations_reach_the_agent() -> None:
    values = ("labels.team=tools", r"labels.app\.kubernetes\.io/part-of=bdauto", "annotations.note=hello")
    taint = ("kubernetes.tolerations[0].key=dedicated", "kubernetes.queue=agents")
    objects = render_chart(*IN_KUBERNETES, *values, *taint)
    job = of_kind(objects, "CronJob")["bdauto-agent"]["spec"]["jobTemplate"]
    pod = job["spec"]["template"]
    own = {"team": "tools", "app.kubernetes.io/name": "bdauto-agent"}
    assert pod["metadata"] == {"labels": own, "annotations": {"note": "hello"}}, "not under bdauto's NetworkPolicy"
    assert job["metadata"]["labels"] == {**own, "kueue.x-k8s.io/queue-name": "agents"}
    assert pod["spec"]["tolerations"] == [{"key": "dedicated"}]


def test_an_image_that_has_bdauto_gets_no_copy() -> None:
    [copied] = [pod_spec(one) for one in workloads(render_chart(*IN_KUBERNETES)) if "agent" in one["metadata"]["name"]]
    assert [one["image"] for one in copied["initContainers"]] == ["bdauto:0.1.0"]
    assert copied["containers"][0]["command"][:3] == ["/opt/bdauto/bin/bdauto", "agent-entry", "--"]
    objects = workloads(render_chart(*IN_KUBERNETES, "kubernetes.copyBdauto=false"))
    [own] = [pod_spec(one) for one in objects if "agent" in one["metadata"]["name"]]
    assert own["containers"][0]["command"][:3] == ["bdauto", "agent-entry", "--"]
    assert "initContainers" not in own
    assert len(own["volumes"]) == 2


def test_the_component_of_kustomize_makes_the_same_jobs() -> None:
    printed_now = {path.name: text for path, text in printed()}
    objects = [one for one in yaml.safe_load_all(printed_now["kubernetes.yaml"]) if one]
    chart = render_chart(*IN_KUBERNETES[:2], "kubernetes.image=agent:0.1.0")
    named = {(one["kind"], one["metadata"]["name"]): one for one in chart}
    for one in objects:
        if one["kind"] != "RoleBinding":  # which names a namespace
            assert named[one["kind"], one["metadata"]["name"]] == one


def installs() -> list[list[str]]:
    """Return the values of each `helm upgrade --install` in docs/deploy.md."""
    text = (ROOT / "docs" / "deploy.md").read_text().replace("\\\n", " ")
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("helm upgrade --install")]
    return [[value for word, value in pairwise(words) if word == "--set"] for words in lines]


@pytest.mark.parametrize("values", installs(), ids=["services", "jobs"])
def test_an_install_that_is_written_down_is_accepted(values: list[str]) -> None:
    assert workloads(render_chart(*values))


def test_nothing_in_place_of_a_map_is_no_label_and_no_setting() -> None:
    assert render_chart(*ADDRESSES, "labels=null", "settings=null") == render_chart(*ADDRESSES)


def test_monitoring_is_off_until_asked_for() -> None:
    kinds = {"PodMonitor", "PrometheusRule"}
    assert not kinds & {kind for kind, _ in names(render_chart(*ADDRESSES, "mode=run"))}
    switches = ("podMonitor.enabled=true", "prometheusRule.enabled=true", "prometheusRule.labels.release=prometheus")
    objects = {item["kind"]: item for item in render_chart(*ADDRESSES, "mode=run", *switches)}
    assert kinds <= set(objects)
    assert objects["PrometheusRule"]["metadata"]["labels"]["release"] == "prometheus"
    assert objects["PodMonitor"]["spec"]["selector"]["matchLabels"].items() <= pod_labels(objects["Deployment"]).items()
    assert "PodMonitor" not in {kind for kind, _ in names(render_chart(*ADDRESSES, *switches))}, "nothing to scrape"


def test_rules_are_those_of_the_monitoring_folder_with_the_runbook_where_it_is_published() -> None:
    rules = yaml.safe_load((CHART.parents[1] / "monitoring" / "rules.yaml").read_text())
    objects = {item["kind"]: item for item in render_chart(*ADDRESSES, "prometheusRule.enabled=true")}
    assert objects["PrometheusRule"]["spec"] == rules
    url = "prometheusRule.runbookUrl=https://git.example/bdauto/"
    objects = {item["kind"]: item for item in render_chart(*ADDRESSES, "prometheusRule.enabled=true", url)}
    for rule in objects["PrometheusRule"]["spec"]["groups"][0]["rules"]:
        assert rule["annotations"]["runbook_url"].startswith("https://git.example/bdauto/docs/runbook.md#bdauto")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("mode=daemon", "/mode"),
        ("mode=null", "'mode'"),
        ("reap.threshold=30", "/reap/threshold"),
        ("dispatch.every=0s", "/dispatch/every"),
        ("reap.every=0m0s", "/reap/every"),
        ("dispatch.schedule=CRON_TZ=Europe/Sofia */2 * * * *", "/dispatch/schedule"),
        ("reap.schedule=TZ=UTC */2 * * * *", "/reap/schedule"),
        ("dispatch.schedule=*/2 * * *", "/dispatch/schedule"),
        ("dolt.cidr=dolt.example", "/dolt/cidr"),
        ("settings.BDAUTO_NOTIFY_URL=json://x", "BDAUTO_NOTIFY_URL"),
        ("dolt.port=99999", "/dolt/port"),
        ("networkPolicy.egressPorts=null", "'egressPorts'"),
        ("dolt.hots=x", "hots"),
        ("settings.API_BEARER_TOKEN=x", "API_BEARER_TOKEN"),
        ("beadboardUrl=http://user:password@beadboard.example", "/beadboardUrl"),
    ],
)
def test_value_that_makes_no_sense_is_refused(value: str, said: str) -> None:
    with pytest.raises(sh.ErrorReturnCode) as refusal:
        render_chart(*ADDRESSES, value)
    assert said in refusal.value.stderr.decode()


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    """Return the objects of one kind by name."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def egress(objects: list[Object]) -> dict[int, list[Object]]:
    """Return where the NetworkPolicy lets each port out, names and metrics apart."""
    [policy] = of_kind(objects, "NetworkPolicy").values()
    return {port["port"]: rule.get("to", []) for rule in policy["spec"]["egress"] for port in rule["ports"]}


def test_the_port_of_dolt_is_one_for_bd_and_for_the_network_policy() -> None:
    objects = render_chart(*ADDRESSES, "dolt.port=3307")
    found = egress(objects)
    assert found[3307] == found[8080] == [{"namespaceSelector": {}}]
    assert 3306 not in found
    cidr = "dolt.cidr=10.1.2.3/32"
    agents = render_chart(*IN_KUBERNETES, "dolt.port=3307", cidr)
    for policy in of_kind(agents, "NetworkPolicy").values():
        assert egress([policy])[3307] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "the agent's bd, too"
    outside = egress(render_chart(*ADDRESSES, "dolt.port=3307", cidr))
    assert outside[3307] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    assert outside[8080] == [{"namespaceSelector": {}}]


def test_a_notification_may_leave_where_it_is_told_to() -> None:
    rule = ("to[0].ipBlock.cidr=0.0.0.0/0", "ports[0].port=443")
    objects = render_chart(*ADDRESSES, *(f"networkPolicy.egress[0].{part}" for part in rule))
    assert egress(objects)[443] == [{"ipBlock": {"cidr": "0.0.0.0/0"}}]


@pytest.mark.parametrize("mode", MODES)
def test_notification_urls_come_from_a_secret(mode: str) -> None:
    for workload in workloads(render_chart(*ADDRESSES, mode, "notify.existingSecret=hooks")):
        [container] = pod_spec(workload)["containers"]
        [variable] = [one for one in container["env"] if one["name"] == "BDAUTO_NOTIFY_URL"]
        assert variable["valueFrom"]["secretKeyRef"] == {"name": "hooks", "key": "notify-urls", "optional": True}


@pytest.mark.parametrize("mode", MODES)
def test_the_configuration_file_is_mounted_and_a_changed_one_replaces_the_pods(mode: str) -> None:
    plain, objects = render_chart(*ADDRESSES, mode), render_chart(*ADDRESSES, mode, "config=max = 3")
    assert of_kind(objects, "ConfigMap")["bdauto-config"]["data"]["config.toml"].strip() == "max = 3"
    for before, workload in zip(workloads(plain), workloads(objects), strict=True):
        [container] = pod_spec(workload)["containers"]
        [mount] = [one for one in container["volumeMounts"] if one["name"] == "bdauto-config"]
        assert mount == {"name": "bdauto-config", "mountPath": "/etc/bdauto", "readOnly": True}
        assert {"name": "BDAUTO_CONFIG", "value": "/etc/bdauto/config.toml"} in container["env"]
        assert yaml.safe_dump(before) != yaml.safe_dump(workload), "its checksum"


def test_the_configuration_file_alone_may_name_what_runs_the_agent() -> None:
    assert render_chart(ADDRESSES[2], "config=agent_url = 'http://agent'")


def test_a_service_leads_to_the_page_of_pods_that_are_ready() -> None:
    services = of_kind(render_chart(*ADDRESSES, "mode=run"), "Service")
    page = services["bdauto-page"]["spec"]
    assert page["selector"] == services["bdauto"]["spec"]["selector"]
    assert (page["ports"][0]["port"], page["ports"][0]["targetPort"]) == (80, "metrics")
    assert "clusterIP" not in page
    assert "publishNotReadyAddresses" not in page


def test_replicas_are_spread_and_a_drain_takes_one_at_a_time() -> None:
    objects = render_chart(*ADDRESSES, "mode=run", "replicas=2")
    [deployment] = workloads(objects)
    [spread] = pod_spec(deployment)["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    assert spread["labelSelector"]["matchLabels"].items() <= pod_labels(deployment).items()
    budget = of_kind(objects, "PodDisruptionBudget")["bdauto"]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]) == (1, spread["labelSelector"])
    kubernetes_validate.validate(of_kind(objects, "PodDisruptionBudget")["bdauto"], "1.27", strict=True)
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "or no node is drained while the database is down"
    assert not of_kind(render_chart(*ADDRESSES, "mode=run"), "PodDisruptionBudget")


def test_two_replicas_by_kustomize_are_those_of_the_chart(tmp_path: Path) -> None:
    parts = {
        kind: os.path.relpath(CHART.parents[1] / "kustomize" / kind, tmp_path) for kind in ("overlays", "components")
    }
    text = f"resources: [{parts['overlays']}/run]\ncomponents: [{parts['components']}/two-replicas]\n"
    (tmp_path / "kustomization.yaml").write_text(text)
    assert meanings(render(str(tmp_path))) == meanings(render_chart(*ADDRESSES, "mode=run", "replicas=2"))


class Strict(yaml.SafeLoader):
    """Refuses a key that is given twice, as the API server does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping whose keys differ."""
        keys = [self.construct_object(key, deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        return super().construct_mapping(node, deep)


def test_a_label_that_is_given_twice_is_written_once() -> None:
    values = ("labels.release=all", "podMonitor.labels.release=one", "prometheusRule.labels.release=two")
    switches = ("mode=run", "podMonitor.enabled=true", "prometheusRule.enabled=true")
    helm = tool("helm", HELM)
    text = helm("template", "bdauto", str(CHART), *(f"--set={value}" for value in (*ADDRESSES, *values, *switches)))
    objects = {item["kind"]: item for item in yaml.load_all(str(text), Strict) if item}
    labels = {
        kind: objects[kind]["metadata"]["labels"]["release"] for kind in ("PodMonitor", "PrometheusRule", "Deployment")
    }
    assert labels == {"PodMonitor": "one", "PrometheusRule": "two", "Deployment": "all"}


def test_the_chart_holds_no_link_out_of_itself() -> None:
    assert not [path for path in CHART.rglob("*") if path.is_symlink()]
    rules = CHART / "files" / "rules.yaml"
    assert rules.read_text() == (CHART.parents[1] / "monitoring" / "rules.yaml").read_text(), "run `make manifests`"
