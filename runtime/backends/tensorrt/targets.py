"""The GPUs that TensorRT for RTX builds for, and the types that each of them computes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ....errors import InputError
from ...tensorrt_choices import TARGETS

#: element type in a graph -> its name as a precision, and the first compute capability with it. The builder refuses
#: bf16 and fp8 before it; int8 products it would compute in float32, for all targets of the engine.
_NEEDS = {
    "bfloat16": ("bf16", 80),
    "float8e4m3fn": ("fp8", 89),
    "float8e5m2": ("fp8", 89),
    "int8": ("int8", 80),
}
#: targets of data centers that the product leaves out
_REFUSED = {"sm90": "H100 and H200", "sm100": "B200"}
#: compute capabilities that ONNX Runtime's provider runs on; it accepts every one from 12.0 on, too
_PROVIDER_RUNS_ON = (86, 89)
_FIRST_BLACKWELL = 120
_ADVICE = {
    "fp32": "its plan is half as large, and its kernels read and write half precision",
    "bf16": "with bf16, pooling converts to float32 and back",
    "int8": "int8 convolutions write float32, which another kernel rounds to int8 again, so int8 gains nothing",
    "fp8": "fp8 convolutions write float32, which another kernel rounds to fp8 again; those of a variant made with "
    "--rest fp16 write fp16",
}


def read_targets(text: str) -> tuple[str, ...]:
    """Read targets such as "sm86,sm89,sm120" or "8.6,8.9"; InputError names one that the builder refuses."""
    names = {_name_target(part.strip()) for part in text.split(",") if part.strip()}
    for name in sorted(names - set(TARGETS)):
        what = f" ({_REFUSED[name]}): build for it with TensorRT, without --rtx" if name in _REFUSED else ""
        raise InputError(f'TensorRT for RTX does not build for "{name}"{what}; its targets are {", ".join(TARGETS)}')
    if not names:
        raise InputError(f'there is no target in "{text}": give some of {", ".join(TARGETS)}')
    return tuple(sorted(names, key=_number))


def name_target(capability: str) -> str:
    """Return the target of a GPU's compute capability: "sm86" for "8.6"."""
    return f"sm{capability.replace('.', '')}"


def find_lacking(targets: Sequence[str], types: Iterable[str]) -> list[str]:
    """Return one line for each precision of a graph's types that some targets lack, and what to do."""
    lacking = []
    for precision, first in dict.fromkeys(_NEEDS[name] for name in sorted(types) if name in _NEEDS):
        without = [target for target in targets if _number(target) < first]
        if without:
            some = f"leave {'it' if len(without) == 1 else 'them'} out, or " if len(without) < len(targets) else ""
            lacking.append(
                f"{', '.join(without)} cannot compute in {precision}, which needs sm{first} or later: {some}build "
                "another precision, such as fp16"
            )
    return lacking


def write_advice(precision: str, targets: Sequence[str], *, writes_float32: bool = True) -> list[str]:
    """Return advice for one build, from the kernels that the builder chooses.

    `writes_float32` is whether narrow products of the engine write float32; by default they are expected to.
    """
    lines = []
    if precision in _ADVICE and (writes_float32 or precision not in ("int8", "fp8")):
        lines.append(f"fp16 is the precision for RTX: {_ADVICE[precision]}")
    if "sm75" in targets and len(targets) > 1:
        lines.append("build for sm75 alone: an engine for sm75 and later GPUs may be slow on the later ones")
    foreign = [target for target in targets if not is_run_by_provider(_number(target))]
    if foreign:
        lines.append(f"the onnxruntime-rtx backend does not run on {', '.join(foreign)}: that takes NVIDIA's SDK")
    return lines


def is_run_by_provider(number: int) -> bool:
    """Whether ONNX Runtime's NvTensorRTRTX provider runs on a compute capability, such as 86."""
    return number in _PROVIDER_RUNS_ON or number >= _FIRST_BLACKWELL


def _name_target(text: str) -> str:
    return text.lower() if text.lower().startswith("sm") else name_target(text)


def _number(target: str) -> int:
    return int(target[2:])
