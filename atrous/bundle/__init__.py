"""The bundle: the contract between the converter, which writes it, and the runtime, which reads it.

The names below are the public ones; each is imported at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import palettes
    from .crf_parameters import BilateralTerm, CrfParameters, GaussianTerm
    from .folder import Bundle, read_bundle
    from .manifest import SCHEMA_VERSION, Deploy, MadeFor, Manifest, Preprocessing, Variant, parse_manifest
    from .packing import pack_bundle
    from .size_rule import SizeRule

__all__ = [
    "SCHEMA_VERSION",
    "BilateralTerm",
    "Bundle",
    "CrfParameters",
    "Deploy",
    "GaussianTerm",
    "MadeFor",
    "Manifest",
    "Preprocessing",
    "SizeRule",
    "Variant",
    "pack_bundle",
    "palettes",
    "parse_manifest",
    "read_bundle",
]

_HOMES = {
    **dict.fromkeys(("BilateralTerm", "CrfParameters", "GaussianTerm"), "crf_parameters"),
    **dict.fromkeys(("Bundle", "read_bundle"), "folder"),
    **dict.fromkeys(
        ("SCHEMA_VERSION", "Deploy", "MadeFor", "Manifest", "Preprocessing", "Variant", "parse_manifest"), "manifest"
    ),
    "SizeRule": "size_rule",
    "pack_bundle": "packing",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name == "palettes":
        return importlib.import_module(".palettes", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
