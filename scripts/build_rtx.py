"""`atrous build --rtx`: engines of TensorRT for RTX for a list of GPUs, built without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..runtime.tensorrt_choices import TARGETS
from . import build_plan, build_report, console

if TYPE_CHECKING:
    from ..bundle.folder import Bundle
    from ..runtime.backends.tensorrt.store import EngineStore

#: options that need a GPU or its timings: their field, and its value if they are not given
_NOT_HERE = {
    "--timing-cache": ("timing_cache", None),
    "--repeats": ("repeats", 1),
    "--image": ("images", ()),
    "--audit": ("audit", None),
}


def run(bundle: Bundle, store: EngineStore, given: Mapping[str, Any], as_json: bool) -> int:
    """Build an engine for the targets and store it, or print the calls of a dry run."""
    from ..runtime.backends.tensorrt import targets as gpus
    from ..runtime.backends.tensorrt import workflow
    from ..runtime.backends.tensorrt.rtx import builder

    wrong = [option for option, (field, default) in _NOT_HERE.items() if given[field] != default]
    if wrong:
        raise click.UsageError(f"{wrong[0]} does not apply to --rtx, which builds without a GPU: omit it")
    if given["target"] is None:
        raise click.UsageError(f"--rtx needs --target, some of {','.join(TARGETS)}: the GPUs to build for")
    targets = gpus.read_targets(given["target"])
    library, capabilities = _find_library(may_plan=given["dry_run"])
    prepared = build_plan.prepare(bundle, given, capabilities, targets)
    if given["dry_run"]:
        return build_plan.show_plan(bundle, prepared, as_json, gpus.write_advice(given["precision"], targets))
    present = None if given["force"] else workflow.find_engine(prepared, store, None)
    if present is not None:
        row = workflow.describe_engine(present, store)
        return build_report.report(bundle, {"engine": row, "built": False, "folder": present.folder}, as_json)
    store.require_writable()
    with console.show_steps() as show:
        show("building")
        built = builder.build_engine(library, prepared.plan, prepared.model)
        made = workflow.store_engine(prepared, built, store, None, required_share=given["required_share"])
    writes_float32 = made.audit.narrow_writing_fp32 > 0
    result = {
        "engine": workflow.describe_engine(made.engine, store),
        "built": True,
        "folder": made.engine.folder,
        "seconds": [round(built.seconds, 3)],
        "audit": made.audit.to_json(),
        "warnings": list(built.log),
        "advice": gpus.write_advice(given["precision"], targets, writes_float32=writes_float32),
    }
    return build_report.report(bundle, result, as_json)


def _find_library(*, may_plan: bool) -> tuple[Any, Any]:
    """The installed library and its capabilities; for a dry run without one, those of the pinned version."""
    from ..errors import MissingDependencyError
    from ..runtime.backends.tensorrt.capabilities import find_rtx_capabilities
    from ..runtime.backends.tensorrt.rtx.library import PINNED_LIBRARY, find_library

    try:
        library = find_library()
    except MissingDependencyError:
        if not may_plan:
            raise
        return None, find_rtx_capabilities(PINNED_LIBRARY)
    return library, find_rtx_capabilities(library.version)
