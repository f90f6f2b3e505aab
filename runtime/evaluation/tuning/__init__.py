"""The search for the CRF's parameters on labeled images. This module is light: `--help` reads it."""

from __future__ import annotations

METHODS = ("pami2018", "iclr2015", "factors")
"""Coarse grids of Chen et al. 2018 and 2015, and the search by factors over all five parameters."""
