"""Ray in tests: the actors, and their processes."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from atrous.runtime.ray_pool import RayNodes

ray = pytest.importorskip("ray", reason="ray is not installed: make ray-check")
psutil = pytest.importorskip("psutil", reason="psutil is not installed")

NODES = RayNodes(cores=1, actors=2)


def find_actors() -> list[Any]:
    """The processes of the actors of this test."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "ray::BundleActor" in " ".join(child.cmdline())]


def kill_an_actor() -> int:
    """Kill an actor; returns its process's number, or 0 if there is none."""
    for actor in find_actors()[:1]:
        os.kill(actor.pid, signal.SIGKILL)
        return int(actor.pid)
    return 0
