"""Targets of TensorRT for RTX: their names, what they lack, and the advice of a build."""

from __future__ import annotations

import re

import pytest

from atrous.errors import BackendError, InputError
from atrous.runtime.backends.tensorrt import keys
from atrous.runtime.backends.tensorrt.capabilities import find_capabilities, find_rtx_capabilities
from atrous.runtime.backends.tensorrt.options import BuildOptions, static_profile
from atrous.runtime.backends.tensorrt.plan import BuildPlan, plan_build
from atrous.runtime.backends.tensorrt.targets import find_lacking, is_run_by_provider, read_targets, write_advice

from ..onnx_models import find_facts, make_graph

RTX = find_rtx_capabilities("1.7.1.116")
PROFILES = (static_profile({"data": (1, 3, 33, 33)}),)


def plan_for(**options: object) -> BuildPlan:
    return plan_build(BuildOptions(PROFILES, **{"targets": ("sm86",), **options}), RTX, find_facts(make_graph()))


def test_names() -> None:
    assert read_targets("sm120, SM86,8.9,sm86") == ("sm86", "sm89", "sm120")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sm90", "H100 and H200"),
        ("10.0", "B200"),
        ("sm61", 'not build for "sm61"'),
        ("", "no target"),
        ("a,b", '"sma"'),
    ],
)
def test_refused_names(text: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        read_targets(text)


@pytest.mark.parametrize(
    ("types", "targets", "part"),
    [
        ({"bfloat16", "float32"}, ("sm75", "sm86"), "^sm75 cannot compute in bf16.*sm80 or later: leave it out, or"),
        ({"float8e4m3fn"}, ("sm80", "sm86"), "^sm80, sm86 cannot compute in fp8.*sm89 or later: build another"),
        ({"float8e4m3fn"}, ("sm75", "sm86", "sm89"), "leave them out"),
        ({"float8e4m3fn"}, ("sm89", "sm120"), None),
        ({"bfloat16"}, ("sm80", "sm121"), None),
        (
            {"int8", "float32"},
            ("sm75", "sm86"),
            "^sm75 cannot compute in int8, which needs sm80.*: leave it out",
        ),
        ({"float16", "uint8"}, ("sm75",), None),
        ({"int8"}, ("sm80",), None),
    ],
)
def test_lacking_types(types: set[str], targets: tuple[str, ...], part: str | None) -> None:
    lines = find_lacking(targets, types)
    assert len(lines) == (part is not None)
    assert not lines or re.search(str(part), lines[0])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"refit": True}, "refit without a GPU: omit --refit"),
        ({"hardware_compatible": "ampere-plus"}, "hardware compatibility levels: name the GPUs with --target"),
        ({"version_compatible": True}, "version-compatible plans"),
        ({"replay": True}, "times no kernels"),
        ({"tactic_sources": "default"}, "tactic sources"),
        ({"targets": ()}, "name the GPUs with --target"),
    ],
)
def test_refused_options(options: dict[str, object], part: str) -> None:
    with pytest.raises(BackendError, match=rf"TensorRT for RTX 1\.7\.1\.116 has no .*{part}"):
        plan_for(**options)


def test_calls() -> None:
    """A plan sets its targets and TF32, and uses neither timing caches nor tactic sources."""
    calls = plan_for(targets=("sm86", "sm120"), level=2, workspace_bytes=1 << 20).record().lines
    assert "config.num_compute_capabilities = 2" in calls
    assert "config.set_compute_capability(trt.ComputeCapability.SM120, 1)" in calls
    assert "config.clear_flag(trt.BuilderFlag.TF32)" in calls
    assert not [call for call in calls if "timing" in call or "tactic" in call or "monitor" in call]


def test_targets_are_in_the_key() -> None:
    def key(*targets: str, version: str = "1.7.1.116") -> keys.EngineKey:
        model = make_graph()
        facts = find_facts(model)
        plan = plan_build(BuildOptions(PROFILES, targets=targets), find_rtx_capabilities(version), facts)
        return keys.make_key(model, facts, plan, None, precision="fp32")

    usual = key("sm86", "sm89")
    assert usual.fields["settings.targets"] == ["sm86", "sm89"]
    assert [d.field for d in usual.compare(key("sm86").fields)] == ["settings.targets"]
    assert [d.field for d in usual.compare(key("sm86", "sm89", version="1.8.0.1").fields)] == ["tensorrt.version"]
    assert not [name for name in usual.fields if name.startswith(("gpu.", "system"))]
    assert keys.find_outdated_rtx(usual.fields, "1.7.1.116") == ""
    assert "rtx 1.8.0.1" in keys.find_outdated_rtx(usual.fields, "1.8.0.1")


def test_rtx_is_no_old_tensorrt() -> None:
    with pytest.raises(BackendError, match="another product: build with --rtx"):
        find_capabilities("1.7.1.116")


def test_advice() -> None:
    assert write_advice("fp16", ("sm86", "sm89", "sm120")) == []
    assert "int8 convolutions write float32" in write_advice("int8", ("sm86",))[0]
    assert "--rest fp16" in write_advice("fp8", ("sm89",))[0]
    assert write_advice("fp8", ("sm89",), writes_float32=False) == []
    assert write_advice("fp32", ("sm89",), writes_float32=False) != []
    slow, foreign = write_advice("fp16", ("sm75", "sm86"))
    assert "sm75 alone" in slow
    assert "does not run on sm75" in foreign


def test_provider() -> None:
    assert [n for n in (75, 80, 86, 89, 90, 100, 120, 121) if is_run_by_provider(n)] == [86, 89, 120, 121]
