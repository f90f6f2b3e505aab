"""The tests of the dense CRF and its fuzz target, run inside an interpreter with a sanitizer.

tools/check_native.sh starts it and puts the instrumented extension on the path. An installed atrous registers an
import hook that takes precedence over the path, so the hook is removed first. Tests that need torch or start processes
are left out: torch does not work under a sanitizer, and other processes would load the installed extension.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the tests and the fuzz target; the exit code is pytest's, or 3 for the wrong extension."""
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, PathFinder]
    import pytest

    from atrous.runtime.crf import _lattice

    if not str(_lattice.__file__).startswith(str(REPO / "build" / "native")):
        print(f"check_native: {_lattice.__file__} is not the instrumented extension", file=sys.stderr)
        return 3
    thorough = os.environ.get("ATROUS_NATIVE_CHECK") == "address"
    left_out = "views_and_other_array_types native_program compiler does_not_crash exit_while worker_process"
    chosen = ["tests/runtime/crf", "-q", "-p", "no:cacheprovider", "-k", f"not ({left_out.replace(' ', ' or ')})"]
    if not thorough:  # a thread sanitizer is ten times slower, and these two add no threads to the others
        chosen += ["--deselect", "tests/runtime/crf/test_random_settings.py::test_random_settings"]
        chosen += ["--deselect", "tests/runtime/crf/test_model.py::test_marginals_are_distributions"]
    code = int(pytest.main(chosen))
    if code == 0:
        from tools.fuzz_crf import main as fuzz

        fuzz(["--rounds", "1000" if thorough else "100"])
    return code


if __name__ == "__main__":
    sys.exit(main())
