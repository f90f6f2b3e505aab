"""`atrous build`: builds a TensorRT engine of a bundle's network into the bundle's store, and manages that store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.tensorrt_choices import HARDWARE_LEVELS, LINES, MAX_LEVEL, REQUIRED_SHARE, TACTIC_SOURCES
from . import build_plan, build_report, build_rtx, build_store, console
from .memory_option import parse_bytes

if TYPE_CHECKING:
    from ..bundle.folder import Bundle
    from ..runtime.backends.tensorrt.store import EngineStore
    from ..runtime.backends.tensorrt.workflow import MadeEngine, PreparedBuild

_NOISE_IMAGES = 4
_PATH = click.Path(path_type=Path)
_option = functools.partial(click.option, show_default=True)
_sizes = functools.partial(click.option, multiple=True, metavar="HxW")
_flag = functools.partial(click.option, is_flag=True)


@click.command()
@click.argument("bundle", type=_PATH)
@_option("--precision", default="fp32", help="Precision to build: fp32, or one of the bundle's variants.")
@_sizes("--shape", "shapes", help="Size of a profile for one size, in pixels; may be repeated.")
@_sizes("--min", "minima", help="Smallest size of a profile, in pixels; may be repeated.")
@_sizes("--opt", "optima", help="Size that the profile is optimized for, in pixels; may be repeated.")
@_sizes("--max", "maxima", help="Largest size of the profile, in pixels; may be repeated.")
@_option("--batch", metavar="N|MIN:OPT:MAX", help="Number of images per run.  [default: 1, or the graph's own]")
@_option(
    "--workspace",
    metavar="BYTES",
    callback=parse_bytes,
    help="Limit of scratch memory, such as 4G.  [default: all device memory]",
)
@_option("--level", type=click.IntRange(0, MAX_LEVEL), help="Builder level: 0 builds fastest, 5 searches longest.")
@_option("--tf32/--no-tf32", default=False, help="Allow TF32 operands, with 10 mantissa bits, in float32 products.")
@_option(
    "--tactic-sources",
    type=click.Choice(TACTIC_SOURCES),
    default="builtin",
    help="Kernel libraries: builtin excludes cuDNN and cuBLAS, default is TensorRT's choice.",
)
@_flag("--rtx", help="Build with TensorRT for RTX, without a GPU, for the GPUs of --target (experimental).")
@_option("--target", metavar="SM,...", help="GPUs that an engine of --rtx is for, such as sm86,sm89,sm120.")
@_flag("--refit", help="Allow the engine's weights to be replaced later.")
@_option("--hardware-compatible", type=click.Choice(HARDWARE_LEVELS), help="Allow other GPUs to run the engine.")
@_flag("--version-compatible", help="Allow later TensorRT versions of the same major version to run the engine.")
@_option("--timing-cache", type=_PATH, help="File of kernel timings to start from; updated after the build.")
@_flag("--replay", help="Use stored kernel timings only: those of --timing-cache, or of the stored engine.")
@_option("--repeats", type=click.IntRange(1, 32), default=1, help="Number of builds; reports how much they differ.")
@_option("--image", "images", multiple=True, type=_PATH, help="Image to compare --repeats on; may be repeated.")
@_option(
    "--required-share",
    type=click.FloatRange(0, 1),
    default=REQUIRED_SHARE,
    help="Share of the graph's narrow products that must be narrow in the engine, 0 to 1.",
)
@_flag("--force", help="Build even if the engine is already stored.")
@_flag("--dry-run", help="Print the TensorRT calls, or with --gc the engines, without action; needs no TensorRT.")
@_option("--tensorrt", "line", type=click.Choice(LINES), help="TensorRT line to plan --dry-run for.")
@_option("--engines", type=_PATH, help="Folder of the engine store.  [default: inside the bundle]")
@_flag("--list", "show_list", help="List the stored engines; builds nothing.")
@_flag("--gc", "collect", help="Remove stored engines that are broken or built from a file no longer in the bundle.")
@_flag("--outdated", help="With --gc, also remove this GPU's engines of another TensorRT or driver.")
@_option("--audit", type=_PATH, help="Audit an engine from the layers that trtexec --exportLayerInfo writes.")
@_option("--layer-times", type=_PATH, help="Layer times for --audit, as trtexec --exportProfile writes them.")
@_option("--trust", metavar="KEY", help="Trust and sign a foreign engine, by the start of its key. A plan is code.")
@console.json_option
def command(bundle: Path, line: str | None, engines: Path | None, as_json: bool, **given: Any) -> int:
    """Build a TensorRT engine of BUNDLE's network on this machine's GPU, to run on that GPU (experimental).

    With --rtx, the engine is for the RTX GPUs of --target, and this machine needs no GPU.

    Exit codes: 1 if the build or its precision audit failed, 3 if there is no TensorRT or no GPU.
    """
    from ..bundle.folder import read_bundle
    from ..runtime.backends.tensorrt.store import EngineStore, find_store

    opened = read_bundle(bundle)
    store = EngineStore(engines or find_store(bundle))
    if line is not None and not given["dry_run"]:
        raise click.UsageError("--tensorrt needs --dry-run; engines are built by the installed TensorRT")
    if given["target"] is not None and not given["rtx"]:
        raise click.UsageError("--target needs --rtx; without it, an engine is for this machine's GPU")
    if given["rtx"] and line is not None:
        raise click.UsageError("--tensorrt names a line of TensorRT, --rtx another product: omit one of them")
    if given["show_list"]:
        return build_store.list_engines(store, as_json)
    if given["collect"]:
        return build_store.collect_garbage(
            store, opened, outdated=given["outdated"], rtx=given["rtx"], dry_run=given["dry_run"], as_json=as_json
        )
    if given["trust"]:
        return build_store.trust_engine(store, given["trust"], as_json)
    if given["rtx"]:
        return build_rtx.run(opened, store, given, as_json)
    if given["audit"]:
        return build_report.audit_recorded(opened, given, as_json)
    if given["dry_run"]:
        prepared = build_plan.prepare(opened, given, build_plan.find_capabilities(line))
        return build_plan.show_plan(opened, prepared, as_json)
    return _build(opened, store, given, as_json)


def _build(bundle: Bundle, store: EngineStore, given: dict[str, Any], as_json: bool) -> int:
    from ..bundle.files import prepare_folder, write_file
    from ..runtime.backends.tensorrt import compat, workflow
    from ..runtime.backends.tensorrt.keys import read_machine

    trt, capabilities = compat.load_tensorrt()
    prepared = build_plan.prepare(bundle, given, capabilities)
    machine, cache_file, repeats = read_machine(), given["timing_cache"], given["repeats"]
    if not (given["force"] or given["replay"] or repeats > 1):
        present = workflow.find_engine(prepared, store, machine)
        if present is not None:
            row = workflow.describe_engine(present, store)
            return build_report.report(bundle, {"engine": row, "built": False, "folder": present.folder}, as_json)
    cache = b""
    if cache_file is not None:
        prepare_folder(cache_file.absolute().parent)
        cache = workflow.read_cache_file(cache_file)
    if given["replay"]:
        cache = workflow.read_replay_cache(prepared, store, machine, cache_file)
    make = functools.partial(workflow.make_engine, trt, prepared, store, machine, timing_cache=cache)
    made: list[MadeEngine] = []
    with console.show_steps() as show:
        for repeat in range(repeats):
            prefix = f"build {repeat + 1} of {repeats}" if repeats > 1 else "building"
            show(prefix)
            progress = functools.partial(_show_phase, show, prefix)
            made.append(make(required_share=given["required_share"], progress=progress))
        noise = _measure_noise(trt, bundle, prepared, made, given["images"]) if repeats > 1 else None
    last = made[-1]
    if cache_file is not None and not given["replay"]:
        write_file(cache_file, last.built.timing_cache)
    result: dict[str, Any] = {
        "engine": workflow.describe_engine(last.engine, store),
        "built": True,
        "folder": last.engine.folder,
        "seconds": [round(engine.built.seconds, 3) for engine in made],
        "audit": last.audit.to_json(),
        "warnings": list(last.built.log),
        **({"rebuild_noise": vars(noise)} if noise is not None else {}),
    }
    return build_report.report(bundle, result, as_json)


def _show_phase(show: Callable[[str], None], prefix: str, phase: str, step: int, steps: int) -> None:
    show(f"{prefix}: {phase} {step}/{steps}")


def _measure_noise(trt: Any, bundle: Bundle, prepared: PreparedBuild, made: Sequence[MadeEngine], images: Any) -> Any:
    """Compare all builds on the same images: the user's, or random color patches."""
    from ..runtime.backends.tensorrt import compat
    from ..runtime.backends.tensorrt.backend import TensorRtBackend
    from ..runtime.backends.tensorrt.driver import CudaDriver
    from ..runtime.backends.tensorrt.noise import measure_rebuild_noise

    name = bundle.deploy.input
    profiles = prepared.plan.options.profiles
    shape = profiles[0][name].optimum if profiles else prepared.facts.inputs[name].shape
    feeds = [{name: image} for image in _make_images(images, shape)]
    with ExitStack() as opened:
        runs = []
        for engine in made:
            loaded = compat.LoadedEngine(trt, engine.built.plan)
            opened.callback(loaded.close)
            backend = TensorRtBackend(loaded.engine, CudaDriver(), log=loaded.log)
            opened.callback(backend.close)
            runs.append(backend.run)
        return measure_rebuild_noise(runs, feeds, bundle.deploy.output)


def _make_images(paths: Sequence[Path], shape: Sequence[int]) -> list[Any]:
    """Images of a profile's optimum shape, N x H x W x 3 uint8 RGB."""
    import numpy as np
    from PIL import Image

    from ..runtime.images import read_image

    batch, height, width, _ = shape
    if paths:
        sources = [Image.fromarray(read_image(path)) for path in paths]
    else:
        random = np.random.default_rng(0)
        sources = [Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)) for _ in range(_NOISE_IMAGES)]
    scaled = [np.asarray(source.resize((width, height), Image.Resampling.BICUBIC)) for source in sources]
    return [np.repeat(image[None], batch, axis=0) for image in scaled]
