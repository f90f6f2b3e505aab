"""The shortcuts that go well together, under a name; docs/crf-performance.md has their measured gain and effect."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: `dense_crf(image, probabilities, **FAST)`: rows of half precision, labels dropped that nowhere reach a hundredth of
#: the best one's probability, and pixels left alone that are 99.9 % sure after one update.
FAST: Mapping[str, Any] = MappingProxyType({"storage": "float16", "prune": 0.01, "settle": 0.999})
