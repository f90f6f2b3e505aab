"""The version that goes into every file the converter writes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("atrous")
except PackageNotFoundError:
    VERSION = "0.0.0+source"
