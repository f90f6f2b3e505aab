"""A pipeline of stages that run concurrently on different items, and a report that names the bottleneck.

The core knows nothing of images. A stage is a named function of one value; each stage has its own threads and a
bounded queue before it; the first stage gets the items, every other stage the values of the stage before it::

    stages = [Stage("decode", read), Stage("network", run, max_workers=1, cores=0), Stage("crf", refine)]
    with Pipeline(stages, cores=4) as pipeline:
        for result in pipeline.run(paths):   # any iterable, read lazily, in the caller's thread
            if result.error is None:
                use(result.value)            # the return value of the last stage
    print(pipeline.report().describe())      # rates, busy shares, queue depths, the bottleneck, what would help
    json.dumps(pipeline.report().to_json())

Guarantees:

1. There is one result per item, in the order of the items.
2. At most `pipeline.max_alive` items are between the iterable and the caller, results included.
3. An exception in a stage fails its own item only: `result.error`, `result.stage`, `result.traceback`. Exceptions of
   the types in `fatal` end the run and are raised from `run`, as they were raised in the stage.
4. Leaving the `with` block (break, an exception, Ctrl-C) finishes the calls in progress, drops the other items and
   joins all threads. Threads of a pipeline that was left running are joined when the interpreter exits.
5. Calls wait for the pipeline's `cores` in order of arrival; see `.cores`. `cores=0` is for a device or a disk.
6. A stage starts threads as items need them, up to `max_workers`; `Pipeline(workers={"crf": 2})` lowers that.

`Stage(..., batch=8, batch_key=f)` passes lists of up to 8 values of equal key to its function, which returns a list of
the same length. `.segmentation.make_stages` makes the stages of a
segmenter.
"""

from __future__ import annotations

from .engine import Pipeline
from .report import PipelineReport, QueueReport, StageReport
from .stage import ItemResult, Stage

__all__ = [
    "ItemResult",
    "Pipeline",
    "PipelineReport",
    "QueueReport",
    "Stage",
    "StageReport",
]
