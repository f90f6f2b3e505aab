"""`segment --shard` and `merge` on the command line, and the job files of `examples/` as a scheduler runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from atrous.scripts.main import main

from ..runtime.bundles import make_image, write_bundle
from .running import run_atrous

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARDS = 2


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a bundle, images, one of them broken, and a list of them."""
    write_bundle(tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.fromarray(make_image(9, 12, number)).save(tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/broken.png").write_bytes(b"hello")
    (tmp_path / "list.txt").write_text("\n".join(f"photos/{name}" for name in os.listdir(tmp_path / "photos")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("workplace")
def test_shards_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    codes = [main(["segment", "bundle", "photos", "-o", "out", "--shard", f"{index}/2"]) for index in range(2)]
    assert sorted(codes) == [0, 1]
    capsys.readouterr()
    assert main(["merge", "out"]) == 1
    assert (
        capsys.readouterr().out == "2 shards are complete: 7 images, 6 results, 1 failed (see failures.jsonl) -> out\n"
    )
    assert main(["merge", "out"]) == 2
    assert "no records of shards" in capsys.readouterr().err


@pytest.mark.usefixtures("workplace")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/broken.png").unlink()
    for index in range(2):
        assert main(["segment", "bundle", "photos", "-o", f"out{index}", "--shard", f"{index}/2"]) == 0
    capsys.readouterr()
    assert main(["merge", "out0", "out1", "-o", "all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["command"], found["out"], found["images"], found["copied"]) == ("merge", "all", 6, 6)


@pytest.mark.parametrize("shard", ["2/2", "x", "1"])
def test_a_bad_shard_is_one_line(shard: str) -> None:
    outcome = run_atrous("segment", "b", "p", "--shard", shard)
    assert outcome.code == 2
    assert outcome.stderr.count("\n") == 1
    assert "shard" in outcome.stderr


@pytest.mark.usefixtures("workplace")
def test_run_takes_its_part(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/broken.png").unlink()
    names: list[str] = []
    for index in range(3):
        capsys.readouterr()
        assert main(["run", "bundle", "photos", "--shard", f"{index}/3", "--json"]) == 0
        names += [Path(image["image"]).name for image in json.loads(capsys.readouterr().out)["images"]]
    assert sorted(names) == sorted(os.listdir("photos"))


def make_environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a job: `atrous` and a stand-in for Slurm's `srun`, which runs its arguments."""
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    for name, line in (("srun", 'exec "$@"'), ("atrous", f'exec {sys.executable} -m atrous.scripts.main "$@"')):
        (binaries / name).write_text(f"#!/bin/sh\n{line}\n")
        (binaries / name).chmod(0o755)
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    return {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, **variables}


def run_job(*words: str, environment: dict[str, str]) -> int:
    return subprocess.run(words, env=environment, check=False, capture_output=True, text=True, timeout=120).returncode


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_slurm(workplace: Path) -> None:
    files = [EXAMPLES / "slurm" / name for name in ("segment.sbatch", "merge.sbatch")]
    for file in files:
        subprocess.run(["bash", "-n", str(file)], check=True)
    fixed = {"BUNDLE": "bundle", "LIST": "list.txt", "OUT": "labels", "SHARDS": str(SHARDS), "SLURM_CPUS_PER_TASK": "1"}
    for index in range(SHARDS):
        environment = make_environment(workplace, SLURM_ARRAY_TASK_ID=str(index), **fixed)
        assert run_job("bash", str(files[0]), environment=environment) == 0
    assert run_job("bash", str(files[1]), environment=environment) == 1  # an image is broken
    assert len(list(Path("labels/photos").glob("*.png"))) == 6
    bad = make_environment(workplace, SLURM_ARRAY_TASK_ID="0", **{**fixed, "BUNDLE": "nowhere"})
    assert run_job("bash", str(files[0]), environment=bad) == 2


def test_kubernetes(workplace: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    jobs = [yaml.safe_load((EXAMPLES / "kubernetes" / f"{name}.yaml").read_text()) for name in ("segment", "merge")]
    assert all((job["apiVersion"], job["kind"]) == ("batch/v1", "Job") for job in jobs)
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in jobs]
    variables = {entry["name"]: entry["value"] for entry in containers[0]["env"]}
    assert jobs[0]["spec"]["completionMode"] == "Indexed"
    assert variables["SHARDS"] == str(jobs[0]["spec"]["completions"])
    commands = [(*container["command"], *container["args"]) for container in containers]
    for index in range(SHARDS):
        own = {**variables, "SHARDS": str(SHARDS), "JOB_COMPLETION_INDEX": str(index)}
        assert run_job(*commands[0], environment=make_environment(workplace, **own)) == 0
    assert run_job(*commands[1], environment=make_environment(workplace, **own)) == 1  # an image is broken
    assert len(list(Path("labels/photos").glob("*.png"))) == 6
