"""A drop-in for pydensecrf: with `import atrous.runtime.crf.compat as dcrf`, its published examples run unchanged.

`atrous.runtime.crf.compat.utils` and `atrous.runtime.crf.compat.densecrf` replace pydensecrf.utils and
pydensecrf.densecrf.
"""

from __future__ import annotations

from . import densecrf, utils
from .densecrf import *  # noqa: F403 (lists its names in __all__)

__all__ = ["densecrf", "utils"]
__all__ += densecrf.__all__
