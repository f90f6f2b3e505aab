"""What a pipeline is made of: stages. What comes out of it: outcomes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError

MAX_WORKERS = 256
MAX_BATCH = 1024


@dataclass(frozen=True)
class Stage:
    """A named function that runs in threads of its own.

    Attributes:
        name: what reports and traces call it.
        function: takes the value of the stage before (the item, in the first stage) and returns the next value. It is
            called from several threads at once. With `batch` it takes and returns a list of values.
        max_workers: how many calls may run at once; None for as many as the pipeline has cores.
        cores: how many of the pipeline's cores a call holds; 0 where a device or a disk does the work.
        batch: how many values a call is given at most. It is given what waits; it never waits for more.
        batch_key: only values of equal key share a call, such as images of one size.
        hint: what a user can do if this stage holds the others up, as the end of a sentence.
    """

    name: str
    function: Callable[[Any], Any]
    max_workers: int | None = None
    cores: int = 1
    batch: int = 1
    batch_key: Callable[[Any], Hashable] | None = None
    hint: str = ""

    def __post_init__(self) -> None:
        if self.max_workers is not None and not 1 <= self.max_workers <= MAX_WORKERS:
            raise InputError(f'stage "{self.name}" needs 1 to {MAX_WORKERS} workers, got {self.max_workers}')
        if not 0 <= self.cores <= MAX_WORKERS:
            raise InputError(f'stage "{self.name}" holds 0 to {MAX_WORKERS} cores a call, got {self.cores}')
        if not 1 <= self.batch <= MAX_BATCH:
            raise InputError(f'stage "{self.name}" takes batches of 1 to {MAX_BATCH}, got {self.batch}')


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Attributes:
        index: its place among the items, from 0.
        item: the item itself.
        value: what the last stage returned; None if a stage failed.
        error: what a stage raised, without its traceback, so that it keeps no arrays alive; None if all went well.
        stage: the name of the stage that failed.
        traceback: the traceback as text, empty if all went well.
        timings_ms: milliseconds of the call in each stage, in their order; of a batch, its share.
    """

    index: int
    item: Any
    value: Any = None
    error: BaseException | None = None
    stage: str | None = None
    traceback: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)
