"""The parts of a pipeline's interface: `Stage` goes in, `ItemResult` comes out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError

MAX_WORKERS = 256
MAX_BATCH = 1024


@dataclass(frozen=True)
class Stage:
    """A named function with threads of its own.

    Attributes:
        name: used in reports and traces.
        function: takes the value of the previous stage (the item, in the first stage) and returns the next value. It
            is called from several threads at once. With `batch` it takes and returns a list of values; with
            `max_cores` it gets the number of cores of this call as a second argument.
        max_workers: the largest number of concurrent calls; None for one per core of the pipeline.
        cores: cores that a call needs to start; 0 if a device or a disk does the work.
        max_cores: the largest number of cores that a call can use; None if it uses just `cores`.
        waits: whether calls wait for their cores; False for short calls, which run beside those of other stages.
        batch: the largest number of values in a call. A call gets the values that are waiting.
        batch_delay_s: seconds that a call waits for more values, if its batch is not full.
        batch_key: only values with equal keys share a call, such as images of one size.
        hint: advice for the user if this stage is the bottleneck, as the end of a sentence.
    """

    name: str
    function: Callable[..., Any]
    max_workers: int | None = None
    cores: int = 1
    max_cores: int | None = None
    waits: bool = True
    batch: int = 1
    batch_delay_s: float = 0.0
    batch_key: Callable[[Any], Hashable] = lambda value: None
    hint: str = ""

    def __post_init__(self) -> None:
        if self.max_workers is not None and not 1 <= self.max_workers <= MAX_WORKERS:
            raise InputError(f'stage "{self.name}" needs 1 to {MAX_WORKERS} workers, got {self.max_workers}')
        if not 0 <= self.cores <= MAX_WORKERS:
            raise InputError(f'a call of stage "{self.name}" needs 0 to {MAX_WORKERS} cores, got {self.cores}')
        if self.max_cores is not None and not 1 <= self.cores <= self.max_cores:
            raise InputError(f'a call of stage "{self.name}" cannot use {self.cores} to {self.max_cores} cores')
        if not 1 <= self.batch <= MAX_BATCH:
            raise InputError(f'stage "{self.name}" takes batches of 1 to {MAX_BATCH}, got {self.batch}')


@dataclass(eq=False)
class ItemResult:
    """An item on its way through the stages and, once it leaves the pipeline, its result.

    Attributes:
        index: position of the item in the input, from 0.
        item: the item.
        value: the return value of the last stage; None if a stage failed.
        error: the exception of the stage that failed, without its traceback (which would keep arrays alive); None on
            success.
        stage: name of the stage that failed.
        traceback: the traceback as text; empty on success.
        timings_ms: milliseconds in each stage, in their order; for a batch, the item's share.
    """

    index: int
    item: Any
    value: Any = None
    error: BaseException | None = None
    stage: str | None = None
    traceback: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)

    def fail(self, stage: str, error: BaseException) -> None:
        """Record an exception and drop the value."""
        self.stage, self.value, self.error = stage, None, error
        self.traceback = "".join(traceback.format_exception(error))
        drop_frames(error)


def drop_frames(error: BaseException) -> None:
    """Remove the tracebacks of an exception and its causes: their frames keep arrays alive."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
