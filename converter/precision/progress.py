"""Progress as the command line shows it: a bar with a name and a number of steps, in a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

#: description and number of steps -> a context that gives a function to advance by a number of steps
ShowProgress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def _show_nothing(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    yield lambda steps: None


SILENT: ShowProgress = _show_nothing
