"""`atrous doctor`: check installed libraries, devices, and the results of small computations."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from . import console

if TYPE_CHECKING:
    from types import ModuleType

    from ..dependencies import Dependency

OK, MISSING, BROKEN = "ok", "missing", "broken"
CORE = {"numpy": "numpy", "pillow": "PIL", "pydantic": "pydantic", "click": "click", "rich": "rich"}
BROKEN_INSTALLATION = 3
_BACKEND = "onnxruntime|openvino|torch|tensorrt"
#: the parts that each command needs; of names joined by `|`, one
NEEDED = {
    "inspect": ("protobuf",),
    "convert": ("torch", "safetensors", "protobuf", "onnx", "onnxruntime"),
    "verify": ("torch", "safetensors", "onnx", "onnxruntime"),
    "precision": ("onnx", "onnx-ir", "onnxruntime"),
    "build": ("tensorrt", "cuda-bindings"),
    "segment": (_BACKEND, "dense CRF"),
    "segment (videos)": (_BACKEND, "dense CRF", "av"),
    "run": ("onnxruntime|openvino",),
    "evaluate": (_BACKEND, "dense CRF"),
    "tune-crf": (_BACKEND, "dense CRF"),
    "fetch": ("httpx", "protobuf"),
    "demo": ("dense CRF",),  # without torch it refines stored scores
    "bench": (_BACKEND, "dense CRF", "mlcommons-loadgen", "psutil"),
}
_CONVERTING = ("inspect", "convert", "verify", "precision")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """A row of the report: a part, its state, its purpose, and a remedy.

    `core` marks the parts that every use needs; others may be missing.
    """

    name: str
    status: str
    core: bool
    version: str | None = None
    brings: str = ""
    detail: str = ""
    remedy: str = ""


@click.command()
@console.json_option
def command(as_json: bool) -> int:
    """Check this installation: libraries, devices, and small computations with known answers.

    Exit codes: 0 everything installed works (optional parts may be missing), 3 a part is broken or a core part is
    missing.
    """
    from ..runtime import devices

    with console.show_progress("checking") as advance:
        findings = [*examine_core(), *examine_optional(lambda: advance(1))]
    processor, cuda_devices = devices.describe_processor(), devices.list_cuda_devices()
    threads = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    is_sound = not any(finding.status == BROKEN or (finding.core and finding.status != OK) for finding in findings)
    if as_json:
        payload = {
            "sound": is_sound,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": asdict(processor),
            "thread_variables": threads,
            "cuda_devices": [asdict(device) for device in cuda_devices],
            "findings": [asdict(finding) for finding in findings],
            "commands": [asdict(ability) for ability in list_abilities(findings)],
        }
        console.print_json("doctor", payload)
        return 0 if is_sound else BROKEN_INSTALLATION

    click.echo(f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    features = ", ".join(processor.features) or "no known vector extensions"
    click.echo(f"{processor.name}: {processor.usable_cores} of {processor.cores} cores usable, {features}")
    for name, value in threads.items():
        click.echo(f"{name}={value} limits the threads of some libraries")
    for device in cuda_devices:
        memory_gib = device.memory_bytes / 2**30
        click.echo(f"{device.name}: compute capability {device.capability}, {memory_gib:.0f} GiB")
    if not cuda_devices:
        click.echo("no CUDA device")
    click.echo()
    console.print_table(("part", "state", "version", "needed", ""), [_make_row(finding) for finding in findings])
    broken = ", ".join(f.name for f in findings if f.status == BROKEN or (f.core and f.status != OK))
    click.echo("\nall that is installed works" if is_sound else f"\nneeds repair: {broken}")
    click.echo("\nwhat you can do here:")
    for ability in list_abilities(findings):
        lacks = f"no, {', '.join(ability.lacks)} missing: {'; '.join(ability.remedies)}" if ability.lacks else "yes"
        console.print_line(f"  {ability.command:<16} {lacks}", None if not ability.lacks else "yellow")
    return 0 if is_sound else BROKEN_INSTALLATION


@dataclass(frozen=True)
class Ability:
    """A command, the libraries that it lacks here, and the lines that install them."""

    command: str
    lacks: tuple[str, ...]
    remedies: tuple[str, ...]


def list_abilities(findings: Sequence[Finding]) -> list[Ability]:
    """For each command, whether its libraries work; a name with `|` needs one of several."""
    state = {finding.name: finding for finding in findings}
    abilities = []
    for command, needed in NEEDED.items():
        lacking = [
            names.split("|")[0]
            for names in needed
            if not any(name in state and state[name].status == OK for name in names.split("|"))
        ]
        remedies = [state[name].remedy for name in lacking if name in state and state[name].remedy]
        if lacking and command in _CONVERTING:
            remedies = ['pip install "atrous[convert]"']
        abilities.append(Ability(command, tuple(lacking), tuple(dict.fromkeys(remedies))))
    return abilities


def _make_row(finding: Finding) -> tuple[str | None, ...]:
    remark = " -> ".join(filter(None, (finding.detail, finding.remedy)))
    return finding.name, finding.status, finding.version, finding.brings, remark


def examine_core() -> list[Finding]:
    """Check the required libraries and the compiled extension."""
    from ..dependencies import read_version

    findings = [Finding("atrous", OK, True, read_version("atrous") or "source tree")]
    for distribution, module in CORE.items():
        findings.append(_examine_import(distribution, module))
    return [*findings, _examine_crf()]


def examine_optional(note_step: Callable[[], None]) -> list[Finding]:
    """Check the libraries of the extras."""
    from ..dependencies import OPTIONAL

    findings = []
    for dependency in OPTIONAL.values():
        findings.append(_examine_dependency(dependency))
        note_step()
    return findings


def _examine_dependency(dependency: Dependency) -> Finding:
    from ..dependencies import import_optional, read_version
    from ..errors import BackendError, BuildError, MissingDependencyError
    from ..runtime import selfcheck

    version = next(filter(None, map(read_version, dependency.distributions)), None)
    sound = Finding(dependency.distributions[0], OK, False, version, f"to {dependency.brings}")
    try:
        if dependency.extra == "rtx":  # its package changes the process that imports it
            return replace(sound, detail=selfcheck.check_rtx())
        module = import_optional(dependency.module)
        return _examine_onnxruntime(module, sound) if dependency.module == "onnxruntime" else sound
    except MissingDependencyError:
        return replace(sound, status=MISSING, remedy=dependency.pip_line)
    except (BackendError, BuildError) as error:
        return replace(sound, status=BROKEN, detail=str(error), remedy=dependency.pip_line)


def _examine_onnxruntime(module: ModuleType, sound: Finding) -> Finding:
    """Check ONNX Runtime: broken if onnxruntime-gpu is installed and was overwritten by the package for CPUs."""
    from ..runtime import selfcheck
    from ..runtime.backends import onnxruntime_providers

    providers = module.get_available_providers()
    parts = [selfcheck.check_onnxruntime(), f"has {', '.join(providers)}"]
    conflict, status, remedy = onnxruntime_providers.describe_conflict(), OK, ""
    if "CUDAExecutionProvider" in providers:
        obstacle = onnxruntime_providers.find_obstacle(module, "CUDAExecutionProvider")
        parts += [f"CUDAExecutionProvider cannot start: {obstacle}"] if obstacle else []
    if conflict:
        parts.append(conflict)
        remedy = onnxruntime_providers.suggest_reinstall()
        status = OK if "CUDAExecutionProvider" in providers else BROKEN
    return replace(sound, status=status, version=module.__version__, detail="; ".join(parts), remedy=remedy)


def _examine_import(distribution: str, module: str) -> Finding:
    import importlib

    from ..dependencies import read_version

    try:
        importlib.import_module(module)
    except ImportError as error:
        return Finding(
            distribution, BROKEN, True, read_version(distribution), str(error), f"pip install {distribution}"
        )
    return Finding(distribution, OK, True, read_version(distribution))


def _examine_crf() -> Finding:
    from ..errors import AtrousError, MissingDependencyError
    from ..runtime import selfcheck

    sound = Finding("dense CRF", OK, True, brings="to refine labels along the image's edges")
    remedy = "pip install --force-reinstall atrous"
    try:
        return replace(sound, detail=selfcheck.check_crf())
    except MissingDependencyError as error:
        return replace(sound, status=MISSING, detail=str(error), remedy=remedy)
    except AtrousError as error:
        return replace(sound, status=BROKEN, detail=str(error), remedy=remedy)
