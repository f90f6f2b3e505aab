from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atrous import runtime
from atrous.runtime.pictures import encode_png
from tools.prove_serving import faults, load
from tools.prove_serving.encodings import measure_encodings
from tools.prove_serving.running import Running, list_files, run_server

from ..runtime.bundles import CRF, make_image, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("prove") / "colors", crf=CRF)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(encode_png(make_image(60, 80, seed)))
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with run_server(bundle, "--threads", 2) as found:
        yield found


def test_throughput_compares_equal_labels(server: Running, bundle: Path, images: Path, tmp_path: Path) -> None:
    with runtime.load(bundle, threads=2) as segmenter:
        report = load.compare_throughput(server, segmenter, list_files(images), tmp_path, 1, 2, 2)
    assert report["serve_over_segment"] > 0


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("half a body", {"left"}),
        ("cancelled", {"left"}),
        ("1 GB announced", {"413"}),
        ("1 GB in chunks", {"413"}),
        ("PNG bomb", {"400"}),
        ("wrong datatype", {"400"}),
        ("10,000 connections", {"200"}),
    ],
)
def test_faults(server: Running, images: Path, name: str, answers: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    send, _, _ = faults.FAULTS[name]
    monkeypatch.setattr(faults, "FAULTS", {name: (send, 3, 3)})
    (row,) = faults.run_faults(server, (images / "0.png").read_bytes())
    assert set(row["answers"]) == answers
    assert set(row["healthy"]) <= {"200"}
    assert row["after"]["files"] <= row["before"]["files"]


def test_nothing_is_lost_at_the_end(bundle: Path, images: Path) -> None:
    """By one process: of several, the system may reset connections that none of them has accepted yet."""
    with run_server(bundle) as server:
        counts = load.kill_once(server, [(images / "0.png").read_bytes()], 4, seed=1)
    assert counts["exit code 0"] == 1
    assert counts["answered 200"] > 0
    assert not [name for name in counts if name.startswith("lost")], counts


def test_soak(server: Running, images: Path) -> None:
    report = load.soak(server, [(images / "0.png").read_bytes()], 0.02, 2)
    assert report["requests"]["labels 200"] > 0
    assert not [name for name in report["requests"] if name.endswith(("500", "Error"))]


def test_encodings_are_measured_at_two_sizes() -> None:
    rows = measure_encodings()
    assert len(rows) == 16
    sizes = {row["form"]: row["bytes"] for row in rows[:8]}
    assert sizes["binary tensor"] < sizes["JSON list"] / 1.9
    assert sizes["palette PNG, level 1"] < sizes["binary tensor"] / 10
