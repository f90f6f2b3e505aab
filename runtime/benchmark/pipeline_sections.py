"""The part of the result file about many images at once: stages side by side, as production runs them."""

from __future__ import annotations

from pydantic import NonNegativeInt

from .sections import Noise, NonNegative, Section, Series, Share


class PipelineStage(Section):
    """One stage of the pipeline, over all rounds.

    Attributes:
        name: "decode", "prepare", "network", "crf" (or "labels", without one), "encode".
        workers: how many it had, averaged over time.
        most_workers, max_workers: how many it had at most, and might have had.
        cores: how many cores a call holds; 0 where a device does the work.
        item_ms: milliseconds an image in a worker that has its cores.
        p90_ms: nine of ten images took less (the median of the rounds).
        busy_share, starved_share, core_wait_share, blocked_share: what its workers' time went to: calls; waiting for
            the stage before, for a core, for room in the next queue.
        queue_capacity: places before it.
        queue_mean_depth: how many waited there on average.
        alone_ms: median of the same work in the stage view, where an image has all cores for itself; None where the
            stage view lacks it.
        alone_per_s: images a second that this stage alone would reach on all cores with those times.
    """

    name: str
    workers: NonNegative
    most_workers: NonNegativeInt
    max_workers: NonNegativeInt
    cores: NonNegativeInt
    item_ms: NonNegative
    p90_ms: NonNegative
    busy_share: Share
    starved_share: Share
    core_wait_share: Share
    blocked_share: Share
    queue_capacity: NonNegativeInt
    queue_mean_depth: NonNegative
    alone_ms: float | None
    alone_per_s: float | None


class PipelineView(Section):
    """The subject's images in rounds, each from a file's bytes in memory to a label file's bytes, all stages at work.

    A round is a pipeline of its own: its filling and its draining are part of its time.

    Attributes:
        images_per_round: the same ones in each round.
        cores: that the stages share.
        network_threads, crf_threads: of one call.
        time_per_image: wall time of a round by its images, milliseconds; one sample a round.
        throughput_per_s, low_per_s, high_per_s: images a second, of the median round, with its interval.
        one_by_one_per_s: of the stage view, images one after the other.
        overlap: share of the time in which two or more stages were at work.
        core_share: share of the cores' time that calls held.
        calls_at_once: how many calls were at work, averaged over time.
        bounds_per_s: by stage, and for "cores", the rate above which it cannot go with the call times seen here.
        limit: which of these bounds is the smallest.
        efficiency: images a second of all rounds together as a share of that bound.
        alone_bound_per_s: the rate that the stage view's times allow where a device works beside the cores; None where
            there is none, since it would be the rate of one image after the other.
        advice: what would move the limit, a sentence each.
        agreement: share of pixels labelled as by the same subject one image after the other.
        noise: whether the rounds may be concluded from.
        stages: in their order.
    """

    images_per_round: NonNegativeInt
    cores: NonNegativeInt
    network_threads: NonNegativeInt
    crf_threads: NonNegativeInt
    time_per_image: Series
    throughput_per_s: float
    low_per_s: float | None
    high_per_s: float | None
    one_by_one_per_s: float | None
    overlap: Share
    core_share: Share
    calls_at_once: NonNegative
    bounds_per_s: dict[str, float]
    limit: str
    efficiency: NonNegative
    alone_bound_per_s: float | None
    advice: tuple[str, ...]
    agreement: Share
    noise: Noise
    stages: tuple[PipelineStage, ...]
