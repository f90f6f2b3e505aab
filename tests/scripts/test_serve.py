from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from ..runtime.bundles import write_bundle
from ..runtime.serve.conftest import start_server
from .running import run_atrous


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("serve") / "four colors")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_other_machines_need_public(bundle: Path, host: str) -> None:
    outcome = run_atrous("serve", bundle, "--host", host)
    assert outcome.code == 2
    assert "--public" in outcome.stderr


def test_bad_arguments(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short")
    short = run_atrous("serve", bundle, "--token-file", tmp_path / "token")
    assert short.code == 2
    assert "16 characters" in short.stderr
    twice = run_atrous("serve", f"a={bundle}", f"a={bundle}")
    assert twice.code == 2
    assert 'two bundles have the name "a"' in twice.stderr
    missing = run_atrous("serve", tmp_path / "nothing", "--json")
    assert missing.code == 2
    assert missing.json["error"]["type"] == "BundleError"


def test_a_taken_port(bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = run_atrous("serve", bundle, "--port", taken.getsockname()[1])
    assert outcome.code == 2
    assert "Address already in use" in outcome.stderr


def test_two_names_and_the_token_of_the_environment(bundle: Path) -> None:
    token = "0123456789abcdef"
    with start_server(f"a={bundle}", f"b={bundle}", ATROUS_SERVE_TOKEN=token) as served:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=served.http) as client:
            assert client.get("/v2/models/a").status_code == 401
            for name in "ab":
                assert client.get(f"/v2/models/{name}", headers=headers).json()["name"] == name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_end_at_a_signal(bundle: Path, number: int) -> None:
    with start_server(bundle, "--workers", 2) as served:
        assert served.process is not None
        with httpx.Client(base_url=served.http) as client:
            assert client.get("/v2/health/ready").status_code == 200
            counted = client.get("/metrics").text
        assert "atrous_queue_capacity 64.0" in counted  # both processes
        os.kill(served.process.pid, number)
        assert served.process.wait(30) == 0


def test_a_process_that_dies_is_replaced(bundle: Path) -> None:
    with start_server(bundle, "--workers", 2) as served:
        assert served.process is not None
        tasks = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children")
        children = [int(pid) for pid in tasks.read_text().split()]
        victims = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
        assert len(victims) == 2
        os.kill(victims[0], signal.SIGKILL)
        for _ in range(20):
            assert httpx.get(f"{served.http}/v2/health/ready").status_code == 200
        assert served.process.poll() is None


def test_json_when_ready(bundle: Path) -> None:
    with start_server(bundle) as served:
        assert served.model == "four-colors"
        assert json.loads(httpx.get(f"{served.http}/v2").text)["name"] == "atrous"
