"""Lets `import pydensecrf` find the drop-in, in this process and in those it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

from ....errors import CrfInputError
from . import densecrf, eigen, utils

#: A folder whose only package is `pydensecrf`. Worker processes inherit `sys.path`, but not a changed `sys.modules`.
_FOLDER = str(Path(__file__).with_name("path"))
_MODULES: dict[str, ModuleType] = {"densecrf": densecrf, "eigen": eigen, "utils": utils}


def install(*, programs: bool = False) -> None:
    """Let `import pydensecrf` in this process find the drop-in, also where the original is installed.

    Worker processes of multiprocessing and joblib find it too.

    Args:
        programs: whether Python programs started from here find it as well, by the environment's PYTHONPATH.

    Raises:
        CrfInputError: the original has been imported already.
    """
    loaded = sys.modules.get("pydensecrf.densecrf") or sys.modules.get("pydensecrf")
    if loaded is not None and loaded is not densecrf:
        file = getattr(loaded, "__file__", None) or ""
        if not file.startswith(_FOLDER):
            raise CrfInputError(f"pydensecrf is already imported from {file}: call install() before its first import")
    if _FOLDER not in sys.path:
        sys.path.insert(0, _FOLDER)
    if programs:
        rest = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = _FOLDER + (os.pathsep + rest if rest else "")


def fill_package(package: str) -> None:
    """Make the drop-in's modules those of the package of that name, which is being imported."""
    for name, module in _MODULES.items():
        setattr(sys.modules[package], name, module)
        sys.modules[f"{package}.{name}"] = module
