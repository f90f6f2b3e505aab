"""Adds the names of the installed TensorRT to names.json: `python record_names.py [MODULE]`.

The bindings alone are enough (tensorrt-cu12-bindings and the like, module "tensorrt_bindings"): where NVIDIA's
libraries are missing, empty ones that define the dozen factories the bindings link to let them load.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

FILE = Path(__file__).with_name("names.json")
CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IErrorRecorder",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "TacticSource",
    "TensorIOMode",
    "TensorLocation",
)
_LEFT_OUT = ("_", "add_", "mark_", "unmark_")  # a network is made by the parser here, never by hand


def read_module_names(module: object) -> dict[str, str]:
    """Class -> its public names, in the module's order for enumerations, else sorted."""
    found = {}
    for name in CLASSES:
        kind = getattr(module, name, None)
        if kind is None:
            continue
        names = list(getattr(kind, "__members__", None) or sorted(dir(kind)))
        left_out = _LEFT_OUT if name == "INetworkDefinition" else _LEFT_OUT[:1]
        found[name] = " ".join(entry for entry in names if not entry.startswith(left_out))
    return found


def main() -> None:
    """Rewrite the file, one class per line."""
    module = importlib.import_module((sys.argv[1:] or ["tensorrt"])[0])
    names = {**json.loads(FILE.read_text()), module.__version__: read_module_names(module)}
    versions = [
        f" {json.dumps(version)}: {{\n"
        + ",\n".join(f"  {json.dumps(kind)}: {json.dumps(words)}" for kind, words in classes.items())
        + "\n }"
        for version, classes in names.items()
    ]
    FILE.write_text("{\n" + ",\n".join(versions) + "\n}\n")


if __name__ == "__main__":
    main()
