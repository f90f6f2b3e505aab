"""Reproducible benchmarks: stages, pipeline, load, accuracy beside speed, noise, comparisons with intervals."""

from __future__ import annotations
