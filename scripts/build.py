"""`atrous build`: a bundle's network -> a TensorRT engine in the bundle's store; and what is in that store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import build_shapes, build_store, console
from .build_audit import audit_recorded, describe_audit

if TYPE_CHECKING:
    from ..bundle.folder import Bundle
    from ..runtime.backends.tensorrt.capabilities import Capabilities
    from ..runtime.backends.tensorrt.store import EngineStore
    from ..runtime.backends.tensorrt.workflow import MadeEngine, PreparedBuild

LINES = ("8.5", "8.6", "9", "10", "11")
PLANNED_LINE = "10"
_NOISE_IMAGES = 4


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", default="fp32", show_default=True, help="fp32, or a variant that the bundle holds.")
@click.option("--shape", "shapes", multiple=True, metavar="HxW", help="A profile of one size; may be repeated.")
@click.option("--min", "smallest", multiple=True, metavar="HxW", help="Smallest size of a profile; may be repeated.")
@click.option("--opt", "usual", multiple=True, metavar="HxW", help="The size that a profile is fastest at.")
@click.option("--max", "largest", multiple=True, metavar="HxW", help="Largest size of a profile.")
@click.option("--batch", default="1", show_default=True, metavar="N|MIN:OPT:MAX", help="Images a run.")
@click.option("--workspace", metavar="SIZE", help="Limit of scratch memory, such as 4G.  [default: TensorRT's]")
@click.option("--level", type=click.IntRange(0, 5), help="How long the builder looks, 0 to 5.  [default: TensorRT's]")
@click.option("--tf32/--no-tf32", default=False, show_default=True, help="Round float32 products to TF32.")
@click.option(
    "--tactic-sources",
    type=click.Choice(["builtin", "default"]),
    default="builtin",
    show_default=True,
    help="builtin needs neither cuDNN nor cuBLAS; default is TensorRT's choice.",
)
@click.option("--refit", is_flag=True, help="Let the engine take other weights later.")
@click.option(
    "--hardware-compatible",
    type=click.Choice(["ampere-plus", "same-capability"]),
    help="Let the engine run on other GPUs too.",
)
@click.option("--version-compatible", is_flag=True, help="Let the engine run under later versions of the same major.")
@click.option("--timing-cache", type=click.Path(path_type=Path), help="File to take timings from and to keep them in.")
@click.option("--replay", is_flag=True, help="Build from kept timings only: the file's, or the stored engine's.")
@click.option("--repeats", type=click.IntRange(1, 32), default=1, help="Build N times and compare the labels.")
@click.option("--image", "images", multiple=True, type=click.Path(path_type=Path), help="Photo for --repeats.")
@click.option(
    "--required-share",
    type=click.FloatRange(0, 1),
    help="Share of the graph's narrow products that must come out narrow.  [default: 0.9]",
)
@click.option("--force", is_flag=True, help="Build although the engine is there already.")
@click.option("--dry-run", is_flag=True, help="Show the calls that would be made; needs no TensorRT.")
@click.option("--tensorrt", "line", type=click.Choice(LINES), help="With --dry-run: the TensorRT to plan for.")
@click.option("--engines", type=click.Path(path_type=Path), help="Folder of the engines.  [default: in the bundle]")
@click.option("--list", "show_list", is_flag=True, help="List the engines that are there.")
@click.option("--gc", "collect", is_flag=True, help="Remove engines that are broken or of no use any more.")
@click.option("--outdated", is_flag=True, help="With --gc: also this GPU's engines of another TensorRT or driver.")
@click.option("--audit", type=click.Path(path_type=Path), help="Audit an inspector's JSON (trtexec --exportLayerInfo).")
@click.option("--layer-times", type=click.Path(path_type=Path), help="With --audit: times (trtexec --exportProfile).")
@click.option("--trust", metavar="KEY", help="Sign an engine that another installation built. A plan is code.")
@console.json_option
def command(bundle: Path, line: str | None, engines: Path | None, as_json: bool, **given: Any) -> int:
    """Build a TensorRT engine of BUNDLE's network on this machine's GPU, for this machine's GPU.

    Exit codes: 1 the build or its precision audit failed, 3 no TensorRT or no GPU.
    """
    from ..bundle.folder import read_bundle
    from ..runtime.backends.tensorrt.store import EngineStore, find_store

    opened = read_bundle(bundle)
    store = EngineStore(engines or find_store(bundle))
    if line is not None and not given["dry_run"]:
        raise click.UsageError("--tensorrt belongs to --dry-run; engines are built by the TensorRT that is installed")
    if given["show_list"]:
        return build_store.list_engines(store, as_json)
    if given["collect"]:
        return build_store.collect_garbage(
            store, opened, outdated=given["outdated"], dry_run=given["dry_run"], as_json=as_json
        )
    if given["trust"]:
        return build_store.trust_engine(store, given["trust"], as_json)
    if given["audit"]:
        return audit_recorded(
            opened, given["precision"], given["audit"], given["layer_times"], _required_share(given), as_json=as_json
        )
    if given["dry_run"]:
        return _show_plan(opened, given, line, as_json)
    return _build(opened, store, given, as_json)


def _prepare(bundle: Bundle, given: dict[str, Any], capabilities: Capabilities) -> PreparedBuild:
    from ..runtime.backends.tensorrt.onnx_reader import read_facts
    from ..runtime.backends.tensorrt.options import BuildOptions
    from ..runtime.backends.tensorrt.workflow import prepare_build

    model = bundle.read_file(bundle.deploy_file(given["precision"]))
    name = bundle.deploy.input
    profiles = build_shapes.make_profiles(
        name,
        read_facts(model).inputs.get(name, ("", (-1, -1, -1, 3)))[1],
        bundle.preprocessing.size_rule,
        build_shapes.read_batch(given["batch"]),
        [build_shapes.read_size(text, "--shape") for text in given["shapes"]],
        (
            [build_shapes.read_size(text, "--min") for text in given["smallest"]],
            [build_shapes.read_size(text, "--opt") for text in given["usual"]],
            [build_shapes.read_size(text, "--max") for text in given["largest"]],
        ),
    )
    options = BuildOptions(
        profiles=profiles,
        workspace_bytes=build_shapes.read_bytes(given["workspace"], "--workspace"),
        level=given["level"],
        tf32=given["tf32"],
        tactic_sources=given["tactic_sources"],
        refit=given["refit"],
        hardware_compatible=given["hardware_compatible"],
        version_compatible=given["version_compatible"],
        replay=given["replay"],
    )
    return prepare_build(model, options, capabilities, precision=given["precision"])


def _show_plan(bundle: Bundle, given: dict[str, Any], line: str | None, as_json: bool) -> int:
    prepared = _prepare(bundle, given, _find_capabilities(line))
    _warn_of(prepared)
    if as_json:
        findings = [vars(finding) for finding in prepared.findings]
        console.print_json(
            "build",
            {
                "bundle": bundle.path,
                "precision": prepared.precision,
                "profiles": prepared.options.profiles_json(),
                "settings": prepared.options.to_json(),
                "findings": findings,
                "plan": prepared.plan.to_json(),
            },
        )
    else:
        click.echo(prepared.plan.to_text())
    return 0


def _required_share(given: dict[str, Any]) -> float:
    from ..runtime.backends.tensorrt.workflow import REQUIRED_SHARE

    return REQUIRED_SHARE if given["required_share"] is None else float(given["required_share"])


def _find_capabilities(line: str | None) -> Capabilities:
    """Of the line that was asked for, else of the TensorRT that is installed, else of the usual line."""
    from ..errors import MissingDependencyError
    from ..runtime.backends.tensorrt import capabilities, compat

    if line is not None:
        return capabilities.LINES[line]
    try:
        return compat.load_tensorrt()[1]
    except MissingDependencyError:
        return capabilities.LINES[PLANNED_LINE]


def _build(bundle: Bundle, store: EngineStore, given: dict[str, Any], as_json: bool) -> int:
    from ..bundle.files import write_file
    from ..runtime.backends.tensorrt import compat, workflow
    from ..runtime.backends.tensorrt.keys import read_machine

    trt, capabilities = compat.load_tensorrt()
    prepared = _prepare(bundle, given, capabilities)
    machine = read_machine()
    _warn_of(prepared)
    cache_file = given["timing_cache"]
    if not (given["force"] or given["replay"] or given["repeats"] > 1):
        present = workflow.find_engine(prepared, store, machine)
        if present is not None:
            row = workflow.describe_engine(present, lambda engine: True)
            return _report(bundle, {"engine": row, "built": False, "folder": present.folder}, as_json)
    cache = workflow.read_cache_file(cache_file) if cache_file is not None else b""
    if given["replay"]:
        cache = workflow.read_replay_cache(prepared, store, machine, cache_file)
    made: list[MadeEngine] = []
    with console.show_steps() as show:
        for repeat in range(given["repeats"]):
            prefix = f"build {repeat + 1} of {given['repeats']}" if given["repeats"] > 1 else "building"
            show(prefix)
            tell = functools.partial(_show_phase, show, prefix)
            made.append(
                workflow.make_engine(
                    trt,
                    prepared,
                    store,
                    machine,
                    timing_cache=cache,
                    required_share=_required_share(given),
                    progress=tell,
                )
            )
        noise = _measure_noise(trt, bundle, prepared, made, given["images"]) if given["repeats"] > 1 else None
    if cache_file is not None and not given["replay"]:
        write_file(cache_file, made[-1].built.timing_cache)
    last = made[-1]
    result: dict[str, Any] = {
        "engine": workflow.describe_engine(last.engine, lambda engine: True),
        "built": True,
        "folder": last.engine.folder,
        "seconds": [round(engine.built.seconds, 3) for engine in made],
        "audit": last.audit.to_json(),
        "warnings": list(last.built.log),
    }
    return _report(bundle, {**result, **({"rebuild_noise": vars(noise)} if noise is not None else {})}, as_json)


def _show_phase(show: Callable[[str], None], prefix: str, phase: str, step: int, steps: int) -> None:
    show(f"{prefix}: {phase} {step}/{steps}")


def _measure_noise(trt: Any, bundle: Bundle, prepared: PreparedBuild, made: Sequence[MadeEngine], images: Any) -> Any:
    """Run all builds on the same images: the user's, or seeded patches of colour."""
    from ..runtime.backends.tensorrt import compat
    from ..runtime.backends.tensorrt.backend import TensorRtBackend
    from ..runtime.backends.tensorrt.driver import CudaDriver
    from ..runtime.backends.tensorrt.noise import measure_rebuild_noise

    name = bundle.deploy.input
    profiles = prepared.options.profiles
    shape = profiles[0][name].optimum if profiles else prepared.graph.inputs[name][1]
    feeds = [{name: image} for image in _make_images(images, shape)]
    backends = []
    for engine in made:
        loaded = compat.LoadedEngine(trt, engine.built.plan)
        backends.append(TensorRtBackend(loaded.engine, CudaDriver(), on_close=loaded.close))
    try:
        return measure_rebuild_noise([backend.run for backend in backends], feeds, bundle.deploy.output)
    finally:
        for backend in backends:
            backend.close()


def _make_images(paths: Sequence[Path], shape: Sequence[int]) -> list[Any]:
    """Images of a profile's usual shape, N x H x W x 3 uint8 RGB."""
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


def _warn_of(prepared: PreparedBuild) -> None:
    for finding in prepared.findings:
        console.print_warning(f"warning: {finding.describe()}")


def _report(bundle: Bundle, result: dict[str, Any], as_json: bool) -> int:
    if as_json:
        console.print_json("build", {"bundle": bundle.path, **result})
        return 0
    engine = result["engine"]
    if not result["built"]:
        click.echo(f"{result['folder']}: there already (--force builds it again)")
        return 0
    for warning in result["warnings"]:
        console.print_warning(warning)
    click.echo(describe_audit(result["audit"]))
    noise = result.get("rebuild_noise")
    if noise is not None:
        click.echo(
            f"rebuild noise: {noise['mean_disagreement']:.4%} of labels differ between {noise['builds']} builds "
            f"(worst pair {noise['worst_disagreement']:.4%}), {noise['identical_pairs']} pairs equal to the last bit"
        )
    seconds = " + ".join(f"{value:.1f}" for value in result["seconds"])
    click.echo(f"{result['folder']}: {engine['precision']}, {engine['plan_bytes'] / 1e6:.1f} MB, {seconds} s")
    return 0


__all__ = ["command"]
