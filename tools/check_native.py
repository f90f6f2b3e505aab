"""What runs inside an interpreter with a sanitizer: the tests of the dense CRF and its fuzz target.

Started by tools/check_native.sh, which puts the instrumented extension on the path. An installed atrous registers an
import hook that would win over the path, so it is taken out first. The tests that time things or need torch are left
out: neither works under a sanitizer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the tests and the fuzz target; the exit code is pytest's, or 3 for the wrong extension."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
    import pytest

    from atrous.runtime.crf import _lattice

    if not str(_lattice.__file__).startswith(str(REPO / "build" / "native")):
        print(f"check_native: {_lattice.__file__} is not the instrumented extension", file=sys.stderr)
        return 3
    thorough = os.environ.get("ATROUS_NATIVE_CHECK") == "address"
    chosen = ["tests/runtime/crf", "-q", "-p", "no:cacheprovider", "-k", "not views_and_other_array_types"]
    if not thorough:  # a thread sanitizer slows everything tenfold; what can race is in these
        chosen += ["--deselect", "tests/runtime/crf/test_random_settings.py::test_random_settings"]
        chosen += ["--deselect", "tests/runtime/crf/test_model.py::test_marginals_are_distributions"]
    code = int(pytest.main(chosen))
    if code == 0:
        from tools.fuzz_crf import main as fuzz

        fuzz(["--rounds", "1000" if thorough else "100"])
    return code


if __name__ == "__main__":
    sys.exit(main())
