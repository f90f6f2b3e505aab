"""Check the contents of the newest wheel in a folder: `python -m tools.check_wheel dist`."""

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
    "atrous/runtime/crf/gpu/common.cu",
    "atrous/runtime/benchmark/report/page.css",
    "atrous/runtime/benchmark/report/page.html.j2",
    "atrous/scripts/main.py",
    "atrous/scripts/miniature/deeplab-miniature.prototxt",
    "atrous/scripts/miniature/deeplab-miniature.caffemodel",
    "atrous/scripts/miniature/deeplab-miniature-scores.npz",
    "atrous/converter/py.typed",
    "atrous/runtime/py.typed",
)
#: license texts that must be in `.dist-info`, with a phrase of each: those of the code that the wheel contains
LICENSES = {
    "LICENSE": ("Apache License",),
    "NOTICE": ("Regents of the University of California", "Wenzel Jakob", "Thibaut Goetghebuer-Planchon"),
}
FORBIDDEN_SUFFIXES = (".cpp", ".h", ".inl", ".pyc", ".o")
MAX_BYTES = 12 << 20


def find_faults(wheel: Path) -> list[str]:
    """List the faults of a wheel, one sentence each."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]  # auditwheel adds the folders
        texts = {
            Path(name).name: archive.read(name).decode()
            for name in names
            if ".dist-info/" in name and Path(name).name in LICENSES
        }
    faults = [f"{name} is missing" for name in REQUIRED if name not in names]
    for name, phrases in LICENSES.items():
        absent = [phrase for phrase in phrases if phrase not in texts.get(name, "")]
        faults += [f'{name} in .dist-info does not contain "{phrase}"' for phrase in absent]
    if not any(name.startswith("atrous/runtime/crf/") and name.endswith((".so", ".pyd")) for name in names):
        faults.append("the compiled CRF is missing")
    metadata = {"entry_points.txt", "METADATA", "RECORD", "WHEEL"}
    for name in names:
        if name.endswith(FORBIDDEN_SUFFIXES):
            faults.append(f"{name} does not belong in a wheel")
        elif not name.startswith("atrous") or name.startswith(("atrous/tests", "atrous/tools")):
            faults.append(f"{name} is outside the package")
        elif ".dist-info/" in name and Path(name).name not in metadata and Path(name).name not in LICENSES:
            faults.append(f"{name} is unknown metadata")
    if wheel.stat().st_size > MAX_BYTES:
        faults.append(f"the wheel has {wheel.stat().st_size} bytes, more than {MAX_BYTES}")
    return faults


def main(arguments: list[str]) -> int:
    """Check the newest wheel of the folder given."""
    wheels = sorted(Path(arguments[0]).glob("atrous-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        print(f"{arguments[0]}: contains no wheel; run make wheel")
        return 1
    faults = find_faults(wheels[-1])
    for fault in faults:
        print(f"{wheels[-1].name}: {fault}")
    if not faults:
        print(f"{wheels[-1].name}: {wheels[-1].stat().st_size / 1e6:.1f} MB, all required files present")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
