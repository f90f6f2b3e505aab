from __future__ import annotations

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.runtime.benchmark.compare import compare_between, compare_within, judge_ratio
from atrous.runtime.benchmark.statistics import Ratio

from .alarm_rates import judge_apart, judge_in_turns
from .simulated_pipeline import make_piped
from .simulation import make_noise, make_result, make_subject


@pytest.mark.parametrize("judge", [judge_apart, judge_in_turns])
def test_identical_runs_raise_no_alarm(judge) -> None:
    rng = np.random.default_rng(11)
    verdicts = [judge(rng, 1.0) for _ in range(80)]
    assert verdicts.count("regression") == 0
    assert verdicts.count("same") >= 64


@pytest.mark.parametrize(("judge", "least"), [(judge_apart, 0.80), (judge_in_turns, 0.95)])
def test_a_planted_slowdown_of_10_percent_is_caught(judge, least: float) -> None:
    rng = np.random.default_rng(12)
    verdicts = [judge(rng, 1.10) for _ in range(50)]
    assert verdicts.count("regression") >= least * 50
    assert verdicts.count("same") == verdicts.count("improvement") == 0


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.06, 1.2, "regression"),
        (1.05, 1.2, "inconclusive"),
        (0.97, 1.04, "same"),
        (0.80, 0.94, "improvement"),
        (0.94, 1.0, "inconclusive"),
        (0.8, 1.3, "inconclusive"),
    ],
)
def test_verdicts_by_the_interval(low: float, high: float, verdict: str) -> None:
    assert judge_ratio(Ratio((low + high) / 2, low, high), 0.05) == verdict


def test_two_runs_are_inconclusive_where_the_machine_changed() -> None:
    values = np.random.default_rng(0).normal(100, 1, 50)
    slow = make_subject(values * 1.3)
    quiet = make_result(make_subject(values))
    assert compare_between(quiet, make_result(slow))[0].verdict == "regression"
    for other, words in (
        (make_result(slow, canary_ms=0.65), "1.30 x the time for the canary"),
        (make_result(slow, cpu="another CPU"), "processors differ"),
        (make_result(make_subject(values * 1.3, conclusive=False)), "the candidate was too noisy (canary)"),
    ):
        (found,) = compare_between(quiet, other)
        assert found.verdict == "inconclusive"
        assert words in found.reason
        assert found.ratio == pytest.approx(1.3, rel=0.01)


def test_other_work_is_rejected() -> None:
    values = np.full(20, 10.0)
    result = make_result(make_subject(values))
    with pytest.raises(InputError, match="image_width is 32 and 64"):
        compare_between(result, make_result(make_subject(values, image_width=64)))
    with pytest.raises(InputError, match="share no subject"):
        compare_between(
            make_result(make_subject(values, "a"), make_subject(values, "b")),
            make_result(make_subject(values, "c"), make_subject(values, "d")),
        )
    with pytest.raises(InputError, match='no stage "crf"'):
        compare_between(result, result, ["crf"])
    with pytest.raises(InputError, match="not measured in turns"):
        compare_within([make_subject(values), make_subject(values[:-1], "other")])


def test_subjects_of_a_run_are_compared_with_its_first() -> None:
    values = np.random.default_rng(0).normal(100, 1, 50)
    result = make_result(make_subject(values, "a"), make_subject(values * 1.2, "b"), make_subject(values / 1.2, "c"))
    assert [(one.baseline, one.candidate, one.verdict) for one in compare_within(result.subjects)] == [
        ("a", "b", "regression"),
        ("a", "c", "improvement"),
    ]
    assert all(one.paired for one in compare_within(result.subjects))


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "regression"), (1.0, "same"), (0.9, "improvement")])
def test_a_lower_throughput_is_a_regression(factor: float, verdict: str) -> None:
    """Ten images a second; the pipeline's own noise counts, not that of the stages."""
    times_ms = 100 + np.linspace(-1, 1, 9)
    first, second = make_piped(times_ms), make_piped(times_ms * factor)
    whole, found = compare_between(first, second)
    assert (found.verdict, found.stage) == (verdict, "pipeline")
    assert f"has {1 / factor:.3f} x the throughput of" in found.reason
    assert (whole.stage, whole.verdict) == ("end_to_end", "same")
    noisy = second.subjects[0].pipeline.model_copy(update={"noise": make_noise(False)})
    doubtful = make_result(second.subjects[0].model_copy(update={"pipeline": noisy}))
    assert compare_between(first, doubtful, ["pipeline"])[0].verdict == "inconclusive"


def test_a_file_without_a_pipeline_is_compared_without_it() -> None:
    piped, plain = make_piped(np.full(9, 100.0)), make_result(make_subject(np.full(40, 100.0)))
    assert [one.stage for one in compare_between(piped, plain)] == ["end_to_end"]
    with pytest.raises(InputError, match="has no pipeline view: measure it again"):
        compare_between(piped, plain, ["pipeline"])


def test_the_shortcuts_of_the_crf_are_other_work() -> None:
    fast = make_subject(np.full(40, 100.0), crf_shortcuts={"reduce": 2})
    with pytest.raises(InputError, match=r"crf_shortcuts is \{\} and \{'reduce': 2\}"):
        compare_between(make_result(make_subject(np.full(40, 100.0))), make_result(fast))
