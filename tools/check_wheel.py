"""The newest wheel of a folder holds what it should and nothing else: `python -m tools.check_wheel dist`."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

REQUIRED = (
    "atrous/proto/caffe.pb",
    "atrous/proto/caffe.proto",
    "atrous/converter/read.py",
    "atrous/converter/official/models.json",
    "atrous/runtime/crf/__init__.py",
    "atrous/runtime/benchmark/report/page.css",
    "atrous/runtime/benchmark/report/page.html.j2",
    "atrous/scripts/main.py",
    "atrous/scripts/miniature/deeplab-miniature.prototxt",
    "atrous/scripts/miniature/deeplab-miniature.caffemodel",
    "atrous/converter/py.typed",
    "atrous/runtime/py.typed",
)
FORBIDDEN_SUFFIXES = (".cpp", ".h", ".inl", ".pyc", ".o")
MAX_BYTES = 12 << 20


def find_faults(wheel: Path) -> list[str]:
    """What is wrong with a wheel, in sentences; empty where nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    faults = [f"{name} is missing" for name in REQUIRED if name not in names]
    if not any(name.startswith("atrous/runtime/crf/") and name.endswith((".so", ".pyd")) for name in names):
        faults.append("the compiled CRF is missing")
    metadata = {"entry_points.txt", "METADATA", "RECORD", "WHEEL"}
    for name in names:
        if name.endswith(FORBIDDEN_SUFFIXES):
            faults.append(f"{name} does not belong in a wheel")
        elif not name.startswith("atrous") or name.startswith(("atrous/tests", "atrous/tools")):
            faults.append(f"{name} is outside the package")
        elif (
            ".dist-info/" in name
            and Path(name).name not in metadata
            and "licenses" not in name
            and "LICENSE" not in name
        ):
            faults.append(f"{name} is unknown metadata")
    if wheel.stat().st_size > MAX_BYTES:
        faults.append(f"the wheel has {wheel.stat().st_size} bytes, more than {MAX_BYTES}")
    return faults


def main(arguments: list[str]) -> int:
    """Check the newest wheel of the folder given."""
    wheels = sorted(Path(arguments[0]).glob("atrous-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        print(f"{arguments[0]}: no wheel there; run make wheel")
        return 1
    faults = find_faults(wheels[-1])
    for fault in faults:
        print(f"{wheels[-1].name}: {fault}")
    if not faults:
        print(f"{wheels[-1].name}: {wheels[-1].stat().st_size / 1e6:.1f} MB, contents as they should be")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
