"""A drop-in for pydensecrf: `import atrous.runtime.crf.compat as dcrf`, and its published examples run unchanged.

`from atrous.runtime.crf.compat.utils import ...` and `atrous.runtime.crf.compat.densecrf` stand for pydensecrf.utils
and pydensecrf.densecrf.
"""

from __future__ import annotations

from . import densecrf, utils
from .densecrf import *  # noqa: F403 (the module is the interface, so its names stand once, in its __all__)

__all__ = ["densecrf", "utils"]
__all__ += densecrf.__all__
