"""The proofs of the pipeline run, on a small bundle, and fail where there is nothing to be proud of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tools import prove_pipeline

from ..runtime.bundles import make_image, write_bundle
from ..scripts.running import run_atrous


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "b")
    (tmp_path / "photos").mkdir()
    for index in range(24):
        Image.fromarray(make_image(40, 60, index)).save(tmp_path / "photos" / f"{index:02}.png")
    return tmp_path


def prove(workplace: Path, what: str, *arguments: str) -> tuple[int, dict[str, object]]:
    line = [what, str(workplace / "b"), str(workplace / "photos"), "--work", str(workplace / "work"), *arguments]
    result = CliRunner().invoke(prove_pipeline.cli, line)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def test_throughput(workplace: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = workplace / "picture.png"
    code, found = prove(
        workplace, "throughput", "--sample", "4", "--rounds", "2", "--device-ms", "20", "--picture", str(picture)
    )
    assert code == 0
    assert found["images"] == 24
    assert 0 < float(str(found["network alone"])) <= 50  # a wait of 20 ms at least
    assert 0.1 < float(str(found["share of slowest"])) <= 2  # a machine that is busy in between gives anything
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000


def test_kill(workplace: Path) -> None:
    code, found = prove(workplace, "kill", "--kills", "1")
    assert code == 0
    assert found["same_as_clean"] is True
    assert (found["lost"], found["done_twice"], found["failed"], found["images"]) == (0, 0, 3, 27)


def test_soak(workplace: Path) -> None:
    pytest.importorskip("psutil", reason="psutil is not installed")
    code, found = prove(workplace, "soak", "--minutes", "0.02")
    assert code == 0
    assert int(str(found["rounds"])) >= 1
    assert run_atrous("segment", workplace / "b", workplace / "photos", "-o", workplace / "work").code == 0
