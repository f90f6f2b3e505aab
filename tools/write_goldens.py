"""The tiny recordings of real Caffe in the compact form of `tests/goldens`.

`python -m tools.write_goldens SHARED` writes that folder; tests call `unpack` to get the case folders back.

1. `nets/<case>.prototxt`: the net printed again from its message, inputs first. A text that the parser refuses, or
   whose comments and quotes are under test, is kept as it is.
2. `cases.json`: a line per case. An error message is cut to its first line and to MAX_ERROR characters.
3. `blobs.zip`: `<case>/blobs.npz`, float32, and `<case>/weights.caffemodel`, byte for byte as Caffe wrote it.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from atrous.converter.files.text_parser import parse_text
from atrous.errors import PrototxtError

from .recordings import Recording, find_recordings

KIND = "tiny"
MAX_ERROR = 120


def pack(recordings: list[Recording], folder: Path) -> None:
    """Write recordings into a folder of this form, in place of what it holds."""
    (folder / "nets").mkdir(parents=True, exist_ok=True)
    for old in (folder / "nets").glob("*.prototxt"):
        old.unlink()
    facts = []
    with zipfile.ZipFile(folder / "blobs.zip", "w") as archive:
        for recording in recordings:
            case = recording.folder.name
            (folder / "nets" / f"{case}.prototxt").write_text(print_net(recording.prototxt.read_text()))
            facts.append(f"{json.dumps(case)}: {json.dumps(_shorten(recording.case))}")
            if recording.blobs:
                arrays: dict[str, Any] = {key: blob.astype(np.float32) for key, blob in recording.blobs.items()}
                np.savez(stored := io.BytesIO(), **arrays)
                _add(archive, f"{case}/blobs.npz", stored.getvalue())
            if weights := recording.weights():
                _add(archive, f"{case}/weights.caffemodel", Path(weights).read_bytes())
    (folder / "cases.json").write_text("{\n" + ",\n".join(facts) + "\n}\n")


def unpack(folder: Path, root: Path) -> None:
    """Write the case folders below `<root>/goldens/tiny`, where `find_recordings` finds them."""
    target = root / "goldens" / KIND
    for case, facts in json.loads((folder / "cases.json").read_text()).items():
        (target / case).mkdir(parents=True)
        (target / case / "case.json").write_text(json.dumps(facts))
        (target / case / "net.prototxt").write_bytes((folder / "nets" / f"{case}.prototxt").read_bytes())
    with zipfile.ZipFile(folder / "blobs.zip") as archive:
        archive.extractall(target)


def print_net(text: str) -> str:
    """The text of a net in protobuf's own layout; see rule 1."""
    if "#" in text or "'" in text:
        return text
    try:
        net = parse_text(text, "NetParameter").message
    except PrototxtError:
        return text
    head, layers = type(net)(), type(net)()
    head.CopyFrom(net)
    for field in ("layers", "layer"):
        getattr(layers, field).extend(getattr(net, field))
        head.ClearField(field)
    return str(text_format.MessageToString(head) + text_format.MessageToString(layers))


def _shorten(case: dict[str, Any]) -> dict[str, Any]:
    """The facts of a case; see rule 2."""
    facts = dict(case)
    if "expected_error" in facts:
        facts["expected_error"] = facts["expected_error"].splitlines()[0][:MAX_ERROR].rstrip()
    if "ran_as" in facts:
        facts["ran_as"] = print_net(facts["ran_as"])
    return facts


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add an entry with a fixed date, so that the same recordings give the same bytes."""
    archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, compresslevel=9)


def main(arguments: list[str] | None = None) -> int:
    """Write the folder of goldens; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder that holds goldens/")
    parser.add_argument("-o", "--output", type=Path, default=Path("tests/goldens"), help="folder to write")
    options = parser.parse_args(arguments)
    recordings = list(find_recordings(options.shared, KIND))
    if not recordings:
        parser.error(f"{options.shared}/goldens/{KIND} holds no recordings")
    pack(recordings, options.output)
    print(f"{len(recordings)} cases in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
