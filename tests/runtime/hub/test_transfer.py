"""A bundle to a stub of the Hub and back, and what is refused on the way."""

from __future__ import annotations

import importlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrous.bundle import read_bundle
from atrous.errors import BundleError, FetchError, InputError, OutputError
from atrous.runtime.hub.transfer import HubName, fetch_bundle, push_bundle

from ..bundles import write_torch_bundle as make_bundle
from .stub import Handler, run_stub

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
NAME = HubName("lab/net")
# of huggingface_hub 2.4's own upload
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    """A stub that huggingface_hub talks to, without the user's token and cache."""
    with run_stub() as (address, handler):
        constants = importlib.import_module("huggingface_hub.constants")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("HF_TOKEN", "hf_stub")
        yield handler


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_goes_up_with_its_card_and_comes_back(server: type[Handler], bundle: Path, tmp_path: Path) -> None:
    address = push_bundle(read_bundle(bundle), NAME, "---\nlicense: mit\n---\n# Net\n")
    assert address.endswith(f"/lab/net/commit/{'c' * 40}")
    files = server.repositories["lab/net"]
    assert files == {**read_files(bundle), "README.md": b"---\nlicense: mit\n---\n# Net\n"}
    whole = fetch_bundle(NAME, tmp_path / "whole", everything=True)
    assert whole.manifest == read_bundle(bundle).manifest
    assert (whole.path / "model.py").read_bytes() == (bundle / "model.py").read_bytes()
    packed = fetch_bundle(NAME, tmp_path / "packed")
    assert set(read_files(packed.path)) == {"manifest.json", "deploy.onnx"}
    packed.verify_files()


def test_a_second_fetch_needs_to_be_told_to_replace(server: type[Handler], bundle: Path, tmp_path: Path) -> None:
    push_bundle(read_bundle(bundle), NAME, "")
    fetch_bundle(NAME, tmp_path / "net")
    with pytest.raises(OutputError, match="there already"):
        fetch_bundle(NAME, tmp_path / "net")
    fetch_bundle(NAME, tmp_path / "net", replace=True)


@pytest.mark.parametrize("name", ["deploy.onnx", "manifest.json"])
def test_altered_files_leave_nothing(name: str, server: type[Handler], bundle: Path, tmp_path: Path) -> None:
    push_bundle(read_bundle(bundle), NAME, "")
    files = server.repositories["lab/net"]
    files[name] = files[name][:-3] + b"abc"  # the same size
    with pytest.raises(BundleError, match="altered" if name == "deploy.onnx" else "manifest"):
        fetch_bundle(NAME, tmp_path / "net")
    assert list(tmp_path.glob("*net*")) == []


def test_a_file_larger_than_the_manifest_says_is_not_downloaded(
    server: type[Handler], bundle: Path, tmp_path: Path
) -> None:
    push_bundle(read_bundle(bundle), NAME, "")
    server.repositories["lab/net"]["deploy.onnx"] += b"more"
    with pytest.raises(BundleError, match="bytes there, the manifest says"):
        fetch_bundle(NAME, tmp_path / "net")


def test_a_manifest_cannot_write_elsewhere(server: type[Handler], bundle: Path, tmp_path: Path) -> None:
    push_bundle(read_bundle(bundle), NAME, "")
    files = server.repositories["lab/net"]
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["../../evil"] = manifest["files"]["deploy.onnx"]
    files["manifest.json"] = json.dumps(manifest).encode()
    with pytest.raises(BundleError, match="evil"):
        fetch_bundle(NAME, tmp_path / "net", everything=True)
    assert not (tmp_path.parent / "evil").exists()


def test_no_bundle_and_no_repository(server: type[Handler], tmp_path: Path) -> None:
    server.repositories["lab/net"] = {"README.md": b""}
    with pytest.raises(BundleError, match="not a bundle"):
        fetch_bundle(NAME, tmp_path / "net")
    with pytest.raises(FetchError, match="hf:lab/none: there is no such repository"):
        fetch_bundle(HubName("lab/none"), tmp_path / "net")
    server.refused = True
    with pytest.raises(FetchError, match="hf:lab/net: the Hub refuses or cannot be reached"):
        push_bundle(read_bundle(make_bundle(tmp_path / "b")), NAME, "")


def test_no_connection(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound without listening: connections are refused
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(importlib.import_module("huggingface_hub.constants"), "ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "hf_stub")
        with pytest.raises(FetchError, match="hf:lab/net: the Hub refuses or cannot be reached"):
            push_bundle(read_bundle(bundle), NAME, "")
        with pytest.raises(FetchError, match="hf:lab/net: the Hub refuses or cannot be reached"):
            fetch_bundle(NAME, tmp_path / "net")


def test_an_altered_bundle_is_not_uploaded(server: type[Handler], bundle: Path) -> None:
    content = (bundle / "deploy.onnx").read_bytes()
    (bundle / "deploy.onnx").write_bytes(content[:-1] + b"x")
    with pytest.raises(BundleError, match="altered"):
        push_bundle(read_bundle(bundle), NAME, "")
    assert server.repositories == {}


@pytest.mark.parametrize("text", ["net", "hf:net", "hf:a/b/c", "hf:../b@c d", "hf:a/b@", "hub:a/b"])
def test_names(text: str) -> None:
    with pytest.raises(InputError, match="hf:ORG/NAME"):
        HubName.parse(text)
    assert HubName.parse("hf:a-1/b.c@v1/x") == HubName("a-1/b.c", "v1/x")
