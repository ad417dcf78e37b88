# SPDX-License-Identifier: Apache-2.0
"""The charts: linted and rendered by Helm itself, each object held to Kubernetes's schemas, and every pod to what is promised."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from fedward import app
from tests.deploy.units import ROOT

helm = pytest.importorskip("helm_python", reason="needs helm-python-sdk: pip install 'fedward[deploy]'")
kubernetes = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: pip install 'fedward[deploy]'")

CHARTS = ROOT / "deploy" / "helm"
NEEDED: dict[str, dict[str, Any]] = {"coordinator": {}, "hospital": {"coordinator": {"cidr": "192.0.2.10/32"}}}
VERSIONS = ("1.25", "1.30", "1.34")
NOBODY = {64001, 64002, 64003}


def rendered(chart: str, **values: Any) -> list[dict[str, Any]]:
    """All objects of a chart, as Helm would send them to a cluster."""
    with helm.Chart.load(str(CHARTS / chart)) as loaded:
        texts = loaded.render(values={**NEEDED[chart], **values}, name="fed", namespace="fedward")
    return [each for text in texts.values() for each in yaml.safe_load_all(text) if each]


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in objects if each["kind"] in ("Deployment", "StatefulSet")}


def containers(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for pod in pods(objects).values():
        yield from pod["containers"]


@pytest.mark.parametrize("chart", NEEDED)
def test_helm_has_nothing_against_a_chart(chart: str) -> None:
    found = helm.lint(str(CHARTS / chart), NEEDED[chart], strict=True)
    assert found["errors"] == []
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("maintenance", [False, True])
@pytest.mark.parametrize("chart", NEEDED)
def test_every_object_is_one_of_kubernetes(chart: str, maintenance: bool, version: str) -> None:
    objects = rendered(chart, maintenance=maintenance, nodeSelector={"gpu": "yes"}, tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert len(objects) >= 4
    for each in objects:
        kubernetes.validate(each, version, strict=True)


def test_kubernetes_would_have_said_so() -> None:
    """The control."""
    service = next(each for each in rendered("coordinator") if each["kind"] == "Service")
    service["spec"]["prots"] = service["spec"].pop("ports")
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(service, VERSIONS[0], strict=True)


@pytest.mark.parametrize(
    ("chart", "values"),
    [
        ("hospital", {"coordinator": {"cidr": ""}}),
        ("hospital", {"coordinator": {"cidr": "everywhere"}}),
        ("hospital", {"hostNetwork": True}),
        ("coordinator", {"replicas": 2}),
        ("coordinator", {"service": {"type": "Nonsense"}}),
        ("coordinator", {"storage": {"size": "much"}}),
    ],
)
def test_values_that_mean_nothing_are_refused(chart: str, values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        rendered(chart, **values)


@pytest.mark.parametrize("chart", NEEDED)
def test_every_pod_is_restricted(chart: str) -> None:
    objects = rendered(chart)
    for name, pod in pods(objects).items():
        assert pod["securityContext"]["runAsUser"] in NOBODY, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", name
        assert pod["automountServiceAccountToken"] is False, name
        assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
    found = list(containers(objects))
    assert len(found) == 2
    for each in found:
        held = each["securityContext"]
        assert (held["runAsNonRoot"], held["readOnlyRootFilesystem"], held["allowPrivilegeEscalation"]) == (True, True, False), each["name"]
        assert held["capabilities"] == {"drop": ["ALL"]}, each["name"]
        assert "memory" in each["resources"]["limits"], each["name"]


def policies(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "NetworkPolicy"}


def chosen(policy: dict[str, Any], objects: list[dict[str, Any]]) -> list[str]:
    """The pods that a policy is about."""
    wanted = policy["podSelector"]["matchLabels"].items()
    return [
        each["metadata"]["name"]
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet") and wanted <= each["spec"]["template"]["metadata"]["labels"].items()
    ]


def test_the_pod_that_reads_images_may_talk_to_nobody_and_the_other_to_one_address() -> None:
    objects = rendered("hospital")
    site, mailbox = policies(objects)["fed-site"], policies(objects)["fed-mailbox"]
    assert (chosen(site, objects), chosen(mailbox, objects)) == (["fed-site"], ["fed-mailbox"])
    for policy in (site, mailbox):
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert policy["ingress"] == []
    assert site["egress"] == []
    assert [rule["to"][0].get("ipBlock") for rule in mailbox["egress"]] == [{"cidr": "192.0.2.10/32"}, None]
    mounted = {name: {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} for name, pod in pods(objects).items()}
    assert "/srv/fedward-images" in mounted["fed-site"]
    assert "/srv/fedward-images" not in mounted["fed-mailbox"]
    images = next(each for each in pods(objects)["fed-site"]["containers"][0]["volumeMounts"] if each["name"] == "images")
    assert images["readOnly"] is True
    claims = {
        name: {each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "persistentVolumeClaim" in each}
        for name, pod in pods(objects).items()
    }
    assert claims["fed-site"] & claims["fed-mailbox"] == {"fed-door"}
    assert not [each for each in objects if each["kind"] == "Service"]


def test_the_mailbox_can_put_nothing_in_the_sockets_place() -> None:
    """The volume's root is the group's to write; who is on the network sees it read-only."""
    mounts = {
        name: each.get("readOnly", False)
        for name, pod in pods(rendered("hospital")).items()
        for container in pod["containers"]
        for each in container["volumeMounts"]
        if each["name"] == "door"
    }
    assert mounts == {"fed-site": False, "fed-mailbox": True}


def test_keys_and_ledger_outlive_the_chart() -> None:
    kept = {
        each["metadata"]["name"]
        for each in rendered("hospital")
        if each["kind"] == "PersistentVolumeClaim" and each["metadata"].get("annotations") == {"helm.sh/resource-policy": "keep"}
    }
    assert kept == {"fed-site", "fed-mailbox"}
    (stateful,) = (each for each in rendered("coordinator") if each["kind"] == "StatefulSet")
    assert stateful["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


def test_the_coordinator_is_reached_by_its_proxy_alone_and_calls_nobody() -> None:
    objects = rendered("coordinator")
    policy = policies(objects)["fed"]
    assert chosen(policy, objects) == ["fed"]
    assert policy["egress"] == []
    assert policy["ingress"] == [{"ports": [{"port": 8443, "protocol": "TCP"}]}]
    (service,) = (each for each in objects if each["kind"] == "Service")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [8443]
    (stateful,) = (each for each in objects if each["kind"] == "StatefulSet")
    assert stateful["spec"]["replicas"] == 1


def test_the_charts_proxy_is_the_one_that_is_tested() -> None:
    (carried,) = (each for each in rendered("coordinator") if each["kind"] == "ConfigMap")
    assert carried["data"]["nginx.conf"].strip() == (ROOT / "deploy" / "nginx" / "nginx.conf").read_text().strip()


def test_maintenance_starts_nothing() -> None:
    for chart in NEEDED:
        for each in containers(rendered(chart, maintenance=True)):
            assert each["command"] == ["sleep", "infinity"]
            assert "args" not in each


@pytest.mark.parametrize("chart", NEEDED)
def test_every_command_is_one_that_fedward_has(chart: str) -> None:
    started = [each["args"] for each in containers(rendered(chart)) if "args" in each]
    typed = [
        shlex.split(line.partition(" -- ")[2])[1:] for line in (CHARTS / "README.md").read_text().splitlines() if " -- fedward " in line
    ]
    assert started
    assert len(typed) == 3
    for words in [*started, *typed]:
        options = [word for word in words if word.startswith("--")]
        said = CliRunner().invoke(app, [*words[:2], "--help"], env={"COLUMNS": "200"})
        assert said.exit_code == 0, words
        assert all(option in said.output for option in options), words


def test_images_and_numbers_are_those_of_the_dockerfile() -> None:
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    for chart in NEEDED:
        for pod in pods(rendered(chart)).values():
            assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile
    assert "--gid 64010 fedward-door" in dockerfile
