"""Benchmarks one can defend: every stage timed, load from LoadGen, accuracy beside speed, noise told."""

from __future__ import annotations
