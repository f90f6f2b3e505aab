"""The nets of the official models, written by atrous itself as deploy prototxts.

The published prototxts are templates around data layers, and not ours to pass on. What is needed of them are facts:
layer names (weights are matched by them), kernels, strides, holes. Here they stand as code, one family a file.
"""

from __future__ import annotations

from .architecture import ARCHITECTURES as ARCHITECTURES
from .architecture import Architecture as Architecture
from .architecture import Head as Head
from .architecture import find_architecture as find_architecture
