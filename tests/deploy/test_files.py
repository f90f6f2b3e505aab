"""The files of `deploy/` and `examples/kubernetes/serve.yaml` agree with the command line and the sources."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from atrous.scripts import serve

from ..conftest import REPO

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")

DEPLOY = REPO / "deploy"


def read_yaml(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def read_entrypoint() -> list[str]:
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    line: list[str] = json.loads(found[1])
    assert line[:2] == ["atrous", "serve"]
    return line[2:]


def parse(arguments: list[str]) -> dict[str, Any]:
    """The arguments of `atrous serve` as it parses them."""
    context: click.Context = serve.command.make_context("serve", arguments)
    return context.params


def test_the_image_gets_all_that_the_wheel_is_built_from() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    folders = set(project["tool"]["scikit-build"]["wheel"]["packages"].values())
    files = {"pyproject.toml", "CMakeLists.txt", *project["project"]["license-files"]}
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {line[1:] for line in allowed if line.startswith("!")}
    assert folders | files <= copied
    assert all((REPO / name).exists() for name in copied)


def test_the_image_serves_all_addresses_on_the_ports_that_are_published() -> None:
    options = parse([*read_entrypoint(), "/bundle"])
    assert (options["host"], options["public"], options["port"], options["grpc_port"]) == ("0.0.0.0", True, 8000, 8001)
    text = (DEPLOY / "Dockerfile").read_text()
    assert "EXPOSE 8000 8001\n" in text
    assert "http://127.0.0.1:8000/v2/health/ready" in text
    user = re.search(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0


def test_compose() -> None:
    (compose,), (gpu,) = (read_yaml(DEPLOY / name) for name in ("compose.yaml", "compose.gpu.yaml"))
    for service in compose["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (DEPLOY / volume.partition(":")[0]).exists(), volume
    assert parse([*read_entrypoint(), *gpu["services"]["atrous"]["command"]])["device"] == "cuda"
    (prometheus,) = read_yaml(DEPLOY / "prometheus.yml")
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": ["atrous:8000"]}]


def test_kubernetes() -> None:
    deployment, service, *_ = read_yaml(REPO / "examples" / "kubernetes" / "serve.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = parse([*read_entrypoint(), *container["args"]])
    assert {port["containerPort"] for port in container["ports"]} == {options["port"], options["grpc_port"]}
    assert options["threads"] == int(container["resources"]["requests"]["cpu"])
    assert options["drain_delay_s"] + options["timeout_s"] < pod["terminationGracePeriodSeconds"]
    assert {port["port"] for port in service["spec"]["ports"]} == {8000, 8001}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in ("/v2/health/ready", "/v2/health/live")


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    from atrous.runtime.pipeline import Pipeline, Stage
    from atrous.runtime.serve.metrics import Metrics

    exported = Metrics(1)
    for status in (200, 400):
        exported.count_request("model", "http", status, 0.1, {"network": 1.0})
    exported.count_batch(1)
    with Pipeline([Stage("network", lambda item: item)], cores=1) as pipeline:
        list(pipeline.run([1]))
        exported.set_report(pipeline.report())
    text = exported.expose()[0].decode()
    declared = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "atrous.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"] for variable in dashboard["templating"]["list"]]
    names = {name for text in asked for name in re.findall(r"atrous_[a-z_]+", text)}
    assert len(names) >= 8
    assert names <= declared
    source = read_yaml(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")[0]["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
