"""A drop-in for pydensecrf: its published examples and third-party programs run unchanged.

`install()`, before they are imported, or `python -m atrous.pydensecrf PROGRAM` lets `import pydensecrf` find it. In own
code, `import atrous.runtime.crf.compat as dcrf` replaces pydensecrf.densecrf, and `atrous.runtime.crf.compat.utils`
replaces pydensecrf.utils.
"""

from __future__ import annotations

from . import densecrf, eigen, utils
from .densecrf import *  # noqa: F403 (lists its names in __all__)
from .names import install

__all__ = ["densecrf", "eigen", "install", "utils"]
__all__ += [name for name in densecrf.__all__ if name != "eigen"]
