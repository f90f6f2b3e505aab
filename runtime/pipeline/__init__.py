"""A pipeline of stages that keeps every stage busy, and says which one holds the others up.

The core knows nothing of images. A stage is a named function of one value; each stage has its own threads and a
bounded queue before it; the first stage is given the items, each further one what the stage before it returned::

    stages = [Stage("decode", read), Stage("network", run, max_workers=1, cores=0), Stage("crf", refine)]
    with Pipeline(stages, cores=4) as pipeline:
        for outcome in pipeline.run(paths):  # any iterable, read lazily, in the caller's own thread
            if outcome.error is None:
                use(outcome.value)           # what the last stage returned
    print(pipeline.report().describe())      # rates, busy shares, queue depths, the bottleneck and what would move it
    json.dumps(pipeline.report().to_json())

What holds:

1. Outcomes come in the order of the items, one for each item, whatever the stages' workers do.
2. At most `pipeline.max_alive` items are between the iterable and the caller at any moment, results included.
3. A stage that raises fails its own item only: `outcome.error`, `outcome.stage`, `outcome.traceback`. Errors of the
   types named in `fatal` end the run and are raised from `run`.
4. Leaving the `with` block (break, an exception, Ctrl-C) finishes the calls under way, drops the rest, and ends every
   thread.
5. A call holds as many of the pipeline's `cores` as its stage says (`cores=0`: a device or a disk does the work), and
   waits for them in the order of arrival: more workers than cores never slow each other down.
6. Worker counts follow the measured times (`workers=None`), or stay as they are told (`workers={"crf": 2}`).

`run_pipeline(stages, items, ...)` does all of it at once and returns (outcomes, report), for lists that fit in memory.
`Stage(..., batch=8, batch_key=f)` hands lists of up to 8 values of equal key to its function, which returns as many.
`TraceWriter` in `trace=` writes a Chrome trace. The stages of a segmenter are `make_stages` of `.segmentation`.
"""

from __future__ import annotations

from .engine import Pipeline, run_pipeline
from .merging import merge_reports
from .report import PipelineReport, QueueReport, StageReport
from .stage import Outcome, Stage
from .trace import TraceWriter

__all__ = [
    "Outcome",
    "Pipeline",
    "PipelineReport",
    "QueueReport",
    "Stage",
    "StageReport",
    "TraceWriter",
    "merge_reports",
    "run_pipeline",
]
