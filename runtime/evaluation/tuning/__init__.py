"""The search for the CRF's parameters on labelled images."""

from __future__ import annotations

from .judging import GivenUp, Judge, Scored, score_images
from .points import GRIDS, Grid, Point, search_factors, search_grid
from .search import METHODS, Part, Search, search_crf, split_images

__all__ = [
    "GRIDS",
    "METHODS",
    "GivenUp",
    "Grid",
    "Judge",
    "Part",
    "Point",
    "Scored",
    "Search",
    "score_images",
    "search_crf",
    "search_factors",
    "search_grid",
    "split_images",
]
