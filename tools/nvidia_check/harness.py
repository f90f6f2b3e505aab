"""NVIDIA's Python bindings on the library and the ONNX parser of TensorRT-RTX, which build engines without a GPU.

`make rtx-check` installs both from PyPI. The bindings load three libraries of Enterprise TensorRT; `forward.c` takes
their places and forwards to RTX. Every use is a process of its own, so that a crash is a failed test.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin", "nvparsers")
MAJORS = (8, 10, 11)
#: versions of the bindings whose names are checked
BINDINGS = tuple(line.split()[0] for line in (HERE / "bindings.txt").read_text().splitlines())
_MODULE = "import sys\n\nimport tensorrt_bindings\n\nsys.modules[__name__] = tensorrt_bindings\n"
_LIMIT_S = 300


class CrashedError(AssertionError):
    """The process died of a signal."""


@dataclass(frozen=True)
class Nvidia:
    """NVIDIA's software: `rtx` has the libraries, `forward` their substitutes for the bindings."""

    rtx: Path
    forward: Path

    def environment(self, bindings: Path | None = None) -> dict[str, str]:
        """The environment in which `import tensorrt` gives the bindings of a folder, by default the installed ones."""
        path = [str(self.forward), *([str(bindings)] if bindings is not None else []), str(ROOT)]
        # beside the library there may be links to it, which NVIDIA's package makes when it is imported
        library, parser = (max(self.rtx.glob(f"libtensorrt{kind}_rtx.so.*")) for kind in ("", "_onnxparser"))
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "LD_LIBRARY_PATH": str(self.forward),
            "RTX_LIBRARY": str(library),
            "RTX_PARSER": str(parser),
        }

    def run(self, command: list[str], bindings: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run Python with the bindings; CrashedError if it dies of a signal."""
        done = subprocess.run(
            [sys.executable, *command],
            env=self.environment(bindings),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        if done.returncode < 0:
            raise CrashedError(f"died of {signal.Signals(-done.returncode).name}: {done.stderr[-2000:]}")
        return done

    def call(self, function: str, **arguments: Any) -> Any:
        """Call a function of `child` in a process of its own; return what it returns, by JSON."""
        done = self.run(["-m", "tools.nvidia_check.child", function, json.dumps(arguments)])
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-4000:]}"
        return json.loads(done.stdout.splitlines()[-1])


def find_package(module: str) -> Path | None:
    """The folder of an installed module, which is not imported: it would load its libraries."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def find_bindings(version: str) -> Path | None:
    """The folder where `make rtx-check` installed a version of the bindings; None if this Python has no wheel of it."""
    folder = Path(sys.prefix, "bindings", version)
    return folder if (folder / "tensorrt_bindings").is_dir() else None


def find_missing() -> str:
    """The reason why NVIDIA's software cannot be used here, or ""."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "NVIDIA's RTX wheel is for Linux on x86-64"
    modules = ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_bindings")
    missing = [module for module in modules if find_package(module) is None]
    return f"{' and '.join(missing)} not installed: run `make rtx-check`" if missing else ""


def prepare(folder: Path) -> Nvidia:
    """Compile the substitutes into a folder."""
    rtx = find_package("onnxruntime_ep_nv_tensorrt_rtx")
    assert rtx is not None
    library = folder / "forward.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(HERE / "forward.c"), "-ldl"], check=True)
    for name in LIBRARIES:
        for major in MAJORS:
            (folder / f"lib{name}.so.{major}").symlink_to(library.name)
    (folder / "tensorrt.py").write_text(_MODULE)
    return Nvidia(rtx, folder)
