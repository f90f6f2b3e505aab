"""The check of a wheel's contents finds what is missing and what does not belong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tools.check_wheel import LICENSES, REQUIRED, find_faults

INFO = "atrous-0.1.0.dist-info"


def write_wheel(folder: Path, **changes: str | None) -> Path:
    files: dict[str, str | None] = dict.fromkeys((*REQUIRED, "atrous/runtime/crf/_lattice.abi3.so"), "")
    files |= {f"{INFO}/{name}": "" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    files |= {f"{INFO}/licenses/{name}": "\n".join(phrases) for name, phrases in LICENSES.items()}
    path = folder / "atrous-0.1.0-cp310-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, **changes}.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def test_complete(tmp_path: Path) -> None:
    assert find_faults(write_wheel(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("atrous/proto/caffe.pb", None, "atrous/proto/caffe.pb is missing"),
        ("atrous/runtime/crf/_lattice.abi3.so", None, "the compiled CRF is missing"),
        (f"{INFO}/licenses/NOTICE", None, 'NOTICE in .dist-info does not contain "Wenzel Jakob"'),
        (f"{INFO}/licenses/NOTICE", "Wenzel Jakob", 'does not contain "Thibaut Goetghebuer-Planchon"'),
        ("atrous/runtime/crf/src/lattice.h", "", "does not belong in a wheel"),
        ("atrous/tools/check_wheel.py", "", "is outside the package"),
        ("converter/read.py", "", "is outside the package"),
        (f"{INFO}/direct_url.json", "", "is unknown metadata"),
    ],
)
def test_fault(name: str, content: str | None, fault: str, tmp_path: Path) -> None:
    assert any(fault in found for found in find_faults(write_wheel(tmp_path, **{name: content})))
