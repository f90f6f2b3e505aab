"""The results that `atrous segment` leaves in the working folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...runtime.bundles import expected_scores


def expected_labels(name: str) -> np.ndarray:
    with Image.open(Path("photos") / name) as image:
        return expected_scores(np.array(image)).argmax(0)


def listing(folder: str = "out") -> list[str]:
    """The results; records of what was done are left out."""
    found = (path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".jsonl"))


def read_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out", name).read_text().splitlines()[1:]]
