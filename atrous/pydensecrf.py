"""Run a Python program whose `import pydensecrf` finds atrous's drop-in; the program is not edited.

python -m atrous.pydensecrf PROGRAM [ARGUMENTS]
python -m atrous.pydensecrf -m MODULE [ARGUMENTS]

The program sees its own arguments, folder and `__main__`, as if Python ran it.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Run the program of the arguments; returns 2 for a bad command line, else 0 unless the program exits itself."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    is_module = arguments[:1] == ["-m"]
    program = list(arguments[1:] if is_module else arguments)
    if not program or (program[0].startswith("-") and not is_module):
        print("usage: python -m atrous.pydensecrf PROGRAM [ARGUMENTS], or -m MODULE [ARGUMENTS]", file=sys.stderr)
        return USAGE
    if not is_module and not os.path.exists(program[0]):
        print(f"atrous.pydensecrf: {program[0]} does not exist: give the path of a Python program", file=sys.stderr)
        return USAGE
    from .runtime.crf.compat import install

    sys.argv = program
    if is_module:
        sys.path[0] = os.getcwd()
        install(programs=True)
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(os.path.realpath(program[0]))
        install(programs=True)
        # absolute, as Python's own: workers that start in another folder read the program again
        runpy.run_path(os.path.abspath(program[0]), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
