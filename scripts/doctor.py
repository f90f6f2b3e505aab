"""`atrous doctor`: what is installed, what it can do here, and whether it computes right."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click

from . import console

OK, MISSING, BROKEN = "ok", "missing", "broken"
CORE = {"numpy": "numpy", "pillow": "PIL", "pydantic": "pydantic", "click": "click", "rich": "rich"}
BROKEN_INSTALLATION = 3
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Finding:
    """One row: what was looked at, how it is, and what to do about it.

    `core` marks what every use needs; anything else may be missing in a sound installation.
    """

    name: str
    status: str
    core: bool
    version: str | None = None
    detail: str = ""
    remedy: str = ""


@click.command()
@console.json_option
def command(as_json: bool) -> int:
    """Check this installation: libraries, devices, and small computations with known answers.

    Exit codes: 0 what is installed works (optional parts may be missing), 3 something is broken, or the core is not
    complete.
    """
    from ..runtime import devices

    with console.show_progress("looking") as advance:
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
    rows = [(f.name, f.status, f.version, f.detail + (f" -> {f.remedy}" if f.remedy else "")) for f in findings]
    console.print_table(("part", "state", "version", ""), rows)
    broken = ", ".join(f.name for f in findings if f.status == BROKEN or (f.core and f.status != OK))
    click.echo("\nall that is installed works" if is_sound else f"\nneeds repair: {broken}")
    return 0 if is_sound else BROKEN_INSTALLATION


def examine_core() -> list[Finding]:
    """The libraries that atrous cannot do without, and its own extension."""
    from ..runtime import selfcheck
    from ..runtime.dependencies import read_version

    findings = [Finding("atrous", OK, True, read_version("atrous") or "source tree")]
    for distribution, module in CORE.items():
        findings.append(_examine_import(distribution, module))
    findings.append(_run_check("dense CRF", selfcheck.check_crf, "build it: pip install . in the source tree"))
    return findings


def examine_optional(note_step: Callable[[], None]) -> list[Finding]:
    """The libraries that extras bring."""
    from ..runtime import selfcheck
    from ..runtime.dependencies import OPTIONAL, import_optional, read_version
    from ..runtime.errors import BackendError, MissingDependencyError

    findings = []
    for dependency in OPTIONAL.values():
        name = dependency.distributions[0]
        version = next(filter(None, map(read_version, dependency.distributions)), None)
        try:
            module = import_optional(dependency.module)
        except MissingDependencyError:
            findings.append(Finding(name, MISSING, False, detail=f"to {dependency.brings}", remedy=dependency.pip_line))
        except BackendError as error:
            findings.append(Finding(name, BROKEN, False, version, str(error), dependency.pip_line))
        else:
            if dependency.module == "onnxruntime":
                check = _run_check(name, selfcheck.check_onnxruntime, dependency.pip_line, core=False, version=version)
                providers = ", ".join(module.get_available_providers())
                findings.append(Finding(**{**asdict(check), "detail": f"{check.detail}; has {providers}"}))
            else:
                findings.append(Finding(name, OK, False, version or getattr(module, "__version__", None)))
        note_step()
    return findings


def _examine_import(distribution: str, module: str) -> Finding:
    import importlib

    from ..runtime.dependencies import read_version

    try:
        importlib.import_module(module)
    except ImportError as error:
        return Finding(
            distribution, BROKEN, True, read_version(distribution), str(error), f"pip install {distribution}"
        )
    return Finding(distribution, OK, True, read_version(distribution))


def _run_check(
    name: str, check: Callable[[], str], remedy: str, *, core: bool = True, version: str | None = None
) -> Finding:
    from ..runtime.errors import InferenceError, MissingDependencyError

    try:
        return Finding(name, OK, core, version, check())
    except MissingDependencyError as error:
        return Finding(name, MISSING, core, version, str(error), remedy)
    except (InferenceError, ImportError) as error:
        return Finding(name, BROKEN, core, version, str(error), remedy)
