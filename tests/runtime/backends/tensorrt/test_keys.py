"""Keys: everything that changes a plan changes the key, and a difference is reported by its field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from atrous.errors import BackendError
from atrous.runtime import devices
from atrous.runtime.backends.tensorrt import keys
from atrous.runtime.backends.tensorrt.capabilities import LINES
from atrous.runtime.backends.tensorrt.keys import EngineKey, Machine, fields_here, find_outdated, make_key, read_machine
from atrous.runtime.backends.tensorrt.options import BuildOptions, ShapeRange, static_profile
from atrous.runtime.backends.tensorrt.plan import plan_build

from .onnx_models import find_facts, make_graph

MACHINE = Machine("Some GPU", "9.0", 132, "550.54.15", "Linux x86_64")
STATIC = (static_profile({"data": (1, 3, 33, 33)}),)


def key_of(
    model: bytes | None = None,
    options: BuildOptions | None = None,
    *,
    line: str = "10",
    machine: Machine = MACHINE,
    precision: str = "fp32",
) -> EngineKey:
    model = model or make_graph()
    facts = find_facts(model)
    settings = options or BuildOptions(profiles=STATIC)
    return make_key(model, facts, plan_build(settings, LINES[line], facts), machine, precision=precision)


def fields_changed(other: EngineKey) -> set[str]:
    """The fields in which another key differs from the default one; the digests must differ as well."""
    usual = key_of()
    assert other.digest != usual.digest
    return {difference.field for difference in usual.compare(other.fields)}


def test_the_same_again() -> None:
    assert key_of().digest == key_of().digest
    assert key_of().compare(key_of().fields) == []


def test_the_same_graph_with_another_dilation() -> None:
    assert fields_changed(key_of(make_graph(dilation=2))) == {"onnx.sha256"}


def test_other_weights() -> None:
    model = make_graph()
    at = len(model) // 2
    changed = model[:at] + bytes([model[at] ^ 1]) + model[at + 1 :]
    assert "onnx.sha256" in fields_changed(key_of(changed))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"workspace_bytes": 1 << 30}, "settings.workspace_bytes"),
        ({"level": 5}, "settings.level"),
        ({"tf32": True}, "settings.tf32"),
        ({"tactic_sources": "default"}, "settings.tactic_sources"),
        ({"refit": True}, "settings.refit"),
        ({"profiles": (static_profile({"data": (1, 3, 65, 33)}),)}, "profiles"),
        ({"profiles": ({"data": ShapeRange((1, 3, 33, 33), (1, 3, 33, 33), (2, 3, 33, 33))},)}, "profiles"),
        ({"profiles": STATIC * 2}, "profiles"),
    ],
)
def test_every_setting(changes: dict[str, Any], field: str) -> None:
    assert fields_changed(key_of(options=replace(BuildOptions(profiles=STATIC), **changes))) == {field}


def test_every_setting_is_in_the_key() -> None:
    named = {name.removeprefix("settings.") for name in key_of().fields if name.startswith("settings.")}
    assert named | {"profiles", "replay", "targets"} == set(BuildOptions.__dataclass_fields__)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gpu": "Other GPU"}, "gpu.name"),
        ({"capability": "8.9"}, "gpu.capability"),
        ({"multiprocessors": 114}, "gpu.multiprocessors"),
        ({"driver": "570.1"}, "gpu.driver"),
        ({"system": "Linux aarch64"}, "system"),
    ],
)
def test_the_machine(changes: dict[str, Any], field: str) -> None:
    assert fields_changed(key_of(machine=replace(MACHINE, **changes))) == {field}


def test_precision_and_version() -> None:
    assert fields_changed(key_of(precision="fp16")) == {"precision.name"}
    assert fields_changed(key_of(line="8.6")) == {"tensorrt.version", "precision.typing"}


def test_our_own_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = key_of()
    monkeypatch.setattr(keys, "BUILDER_REVISION", 2)
    assert {difference.field for difference in usual.compare(key_of().fields)} == {"builder.revision"}


def test_compatible_engines_are_tied_to_less() -> None:
    other_gpu = replace(MACHINE, gpu="Other GPU", capability="8.6", multiprocessors=80)
    anywhere = BuildOptions(profiles=STATIC, hardware_compatible="ampere-plus")
    assert key_of(options=anywhere).digest == key_of(options=anywhere, machine=other_gpu).digest
    alike = BuildOptions(profiles=STATIC, hardware_compatible="same-capability")
    same = replace(MACHINE, gpu="Other GPU", multiprocessors=114)
    assert key_of(options=alike).digest == key_of(options=alike, machine=same).digest
    assert key_of(options=alike).digest != key_of(options=alike, machine=other_gpu).digest
    later = BuildOptions(profiles=STATIC, version_compatible=True)
    assert key_of(options=later).fields["tensorrt.version"] == "10"


def test_a_stored_engine_here() -> None:
    """The required machine fields follow from the compatibility of the build."""
    early = replace(MACHINE, gpu="Early GPU", capability="7.5", multiprocessors=40)
    other = replace(MACHINE, gpu="Other GPU", capability="8.6", multiprocessors=80)

    def runs(options: BuildOptions, machine: Machine, line: str = "10") -> bool:
        fields = key_of(options=options).fields
        here = fields_here(fields, machine, LINES[line])
        return all(fields[name] == value for name, value in here.items())

    tied = BuildOptions(profiles=STATIC)
    assert [runs(tied, machine) for machine in (MACHINE, other)] == [True, False]
    anywhere = replace(tied, hardware_compatible="ampere-plus")
    assert [runs(anywhere, machine) for machine in (MACHINE, other, early)] == [True, True, False]
    later = replace(tied, version_compatible=True)
    assert [runs(later, MACHINE, line) for line in ("10", "11")] == [True, False]


def test_outdated_engines() -> None:
    fields = key_of().fields
    assert find_outdated(fields, MACHINE, LINES["10"]) == ""
    assert find_outdated(fields, replace(MACHINE, driver="570.0"), LINES["10"]) == (
        'gpu.driver is "550.54.15" there and "570.0" here'
    )
    assert "tensorrt.version" in find_outdated(fields, MACHINE, LINES["11"])
    assert find_outdated(fields, replace(MACHINE, gpu="Other GPU"), LINES["11"]) == ""


def test_differences_are_readable() -> None:
    other = key_of(machine=replace(MACHINE, gpu="Other GPU")).fields
    assert [d.describe() for d in key_of().compare(other)] == ['gpu.name is "Other GPU" there and "Some GPU" here']


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "list_cuda_devices", lambda: ())
    with pytest.raises(BackendError, match="there is no GPU"):
        read_machine()


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "list_cuda_devices", lambda: (devices.CudaDevice("Some GPU", "9.0", 80 << 30),))
    monkeypatch.setattr(keys, "count_multiprocessors", lambda index: 132)
    monkeypatch.setattr(keys, "read_driver_version", lambda: "550.54.15")
    found = read_machine()
    assert (found.gpu, found.capability, found.multiprocessors, found.driver) == ("Some GPU", "9.0", 132, "550.54.15")
    with pytest.raises(BackendError, match="there are only 1 GPUs"):
        read_machine(1)
