"""The engine store: engines are found; tampered, truncated, foreign or stale ones are refused by field."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from atrous.errors import EngineError, OutputError
from atrous.runtime.backends.tensorrt.keys import EngineKey
from atrous.runtime.backends.tensorrt.records import RECORD_NAME, EngineRecord, parse_record
from atrous.runtime.backends.tensorrt.signing import Signer
from atrous.runtime.backends.tensorrt.store import EngineStore, StoredEngine, find_store

MINE, THEIRS = Signer(b"m" * 32), Signer(b"t" * 32)
PLAN = bytes(range(256)) * 4
PROFILES = [{"data": {"min": [1, 3, 33, 33], "opt": [1, 3, 65, 65], "max": [4, 3, 129, 129]}}]
FIELDS: dict[str, Any] = {
    "onnx.sha256": "a" * 64,
    "profiles": PROFILES,
    "precision.name": "fp16",
    "tensorrt.version": "10.13.3.9",
    "gpu.name": "Some GPU",
    "gpu.driver": "550.54",
}


def make_store(folder: Path, signer: Signer = MINE) -> EngineStore:
    return EngineStore(folder / "engines", signer)


def put(store: EngineStore, plan: bytes = PLAN, **changes: Any) -> StoredEngine:
    fields = {**FIELDS, **{name.replace("__", "."): value for name, value in changes.items()}}
    return store.put(EngineKey(fields), plan, b"timings", {"seconds": 1.5})


def edit(engine: StoredEngine, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record as with a text editor."""
    path = engine.folder / RECORD_NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused_field(store: EngineStore, engine: StoredEngine, **how: Any) -> str:
    """The field of the error when the engine's plan is read."""
    with pytest.raises(EngineError) as caught:
        store.read_plan(store.read(engine.folder), **how)
    assert caught.value.exit_code == 2
    return caught.value.field


def test_put_and_find(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    put(store)
    found = store.choose(FIELDS)
    assert store.read_plan(found) == PLAN
    assert store.read_timing_cache(found) == b"timings"
    assert found.record.build == {"seconds": 1.5}
    assert found.folder.name == EngineKey(FIELDS).digest


def test_a_record_is_readable(tmp_path: Path) -> None:
    content = json.loads((put(make_store(tmp_path)).folder / RECORD_NAME).read_text())
    assert content["schema_version"] == 1
    assert content["fields"] == FIELDS
    assert content["plan"]["bytes"] == len(PLAN)


def test_replacing_leaves_one_engine(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    put(store)
    engine = put(store, b"another plan")
    assert store.read_plan(store.choose(FIELDS)) == b"another plan"
    assert len(list(engine.folder.iterdir())) == 3
    assert len(store.list_engines()) == 1


def test_an_interrupted_write_leaves_the_old_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    replace = os.replace

    def fail_at_the_record(source: Path, target: Path) -> None:
        if Path(target).name == RECORD_NAME:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_record)
    with pytest.raises(OutputError, match="No space left"):
        put(store, b"another plan")
    monkeypatch.undo()
    assert store.read_plan(store.read(engine.folder)) == PLAN


def test_a_replaced_engine_that_was_just_read(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    old = put(store)
    put(store, b"another plan")
    assert store.read_plan(old) == b"another plan"


def test_two_writers_of_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks, one replaces the record while the other has written its plan and not its record yet."""

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fail)
    store, other = make_store(tmp_path), make_store(tmp_path)
    put(store)
    to_bytes = EngineRecord.to_bytes

    def let_the_other_go_first(record: EngineRecord) -> bytes:
        monkeypatch.setattr(EngineRecord, "to_bytes", to_bytes)
        put(other, b"the other's plan")
        return to_bytes(record)

    monkeypatch.setattr(EngineRecord, "to_bytes", let_the_other_go_first)
    engine = put(store, b"this one's plan")
    assert store.read_plan(store.read(engine.folder)) == b"this one's plan"
    left_over = {path.name for path in engine.folder.iterdir()} - {
        RECORD_NAME,
        engine.record.plan.file,
        engine.record.timing_cache.file,
    }
    assert len(left_over) == 1
    for name in left_over:
        os.utime(engine.folder / name, (0, 0))
    assert set(store.collect_garbage()) == {engine.folder / name for name in left_over}
    assert store.read_plan(store.read(engine.folder)) == b"this one's plan"


def test_two_writers_and_a_reader(tmp_path: Path) -> None:
    """A reader gets one writer's plan or the other's, and only the last one's files stay."""
    key, rounds = EngineKey(FIELDS), 60
    plans = [bytes([number]) * 50_000 for number in (1, 2)]
    first = make_store(tmp_path).put(key, plans[0], b"timings", {})

    def write(plan: bytes) -> None:
        for number in range(rounds):
            make_store(tmp_path).put(key, plan, plan[:10], {"round": number})

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, plan) for plan in plans]
        store, reads = make_store(tmp_path), 0
        while not all(writer.done() for writer in writers):
            engine = store.choose(key.fields)
            assert store.read_plan(engine) in plans
            assert store.read_timing_cache(engine) in (b"timings", plans[0][:10], plans[1][:10])
            assert store.collect_garbage() == {}
            reads += 1
        for writer in writers:
            writer.result()
    assert reads > 10
    assert store.read_plan(first) in plans
    assert len(list(first.folder.iterdir())) == 3


# --- tampered, truncated, foreign, unsigned --------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 500, len(PLAN) - 1])
@pytest.mark.parametrize("trust", [False, True])
def test_a_tampered_plan(tmp_path: Path, at: int, trust: bool) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    path = engine.folder / engine.record.plan.file
    path.write_bytes(PLAN[:at] + bytes([PLAN[at] ^ 1]) + PLAN[at + 1 :])
    assert refused_field(store, engine, trust=trust) == "plan.sha256"


@pytest.mark.parametrize("kept", [0, 1, len(PLAN) - 1])
@pytest.mark.parametrize("trust", [False, True])
def test_a_truncated_plan(tmp_path: Path, kept: int, trust: bool) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    (engine.folder / engine.record.plan.file).write_bytes(PLAN[:kept])
    assert refused_field(store, engine, trust=trust) == "plan.bytes"


def test_a_longer_plan(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    (engine.folder / engine.record.plan.file).write_bytes(PLAN + b"x")
    assert refused_field(store, engine) == "plan.bytes"


def test_a_missing_plan(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    (engine.folder / engine.record.plan.file).unlink()
    assert refused_field(store, engine) == "plan"


@pytest.mark.parametrize("name", ["record", "plan", "timing_cache"])
def test_a_fifo_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    """Opening a FIFO blocks until a writer opens it."""
    store = make_store(tmp_path)
    engine = put(store)
    path = engine.folder / (RECORD_NAME if name == "record" else getattr(engine.record, name).file)
    path.unlink()
    os.mkfifo(path)
    errors: list[EngineError] = []

    def read() -> None:
        try:
            if name == "timing_cache":
                store.read_timing_cache(engine)
            else:
                store.read_plan(store.read(engine.folder))
        except EngineError as error:
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert errors[0].field == name
    assert "not a regular file" in str(errors[0])
    assert engine.folder in store.collect_garbage(dry_run=True) or name == "timing_cache"


def test_a_record_that_claims_a_huge_plan(tmp_path: Path) -> None:
    """The size is checked before memory is allocated for it."""
    store = make_store(tmp_path)
    engine = put(store)
    edit(engine, lambda content: content["plan"].update(bytes=16 << 30))
    tracemalloc.start()
    try:
        assert refused_field(store, engine, trust=True) == "plan.bytes"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_swapped_plan_with_a_matching_record(tmp_path: Path) -> None:
    """An attacker who changes the plan and its digest in the record cannot sign the record."""
    store = make_store(tmp_path)
    engine, other = put(store), make_store(tmp_path / "attacker", THEIRS).put(EngineKey(FIELDS), b"evil", b"", {})
    shutil.copy(other.folder / other.record.plan.file, engine.folder)
    edit(engine, lambda content: content.update(plan=vars(other.record.plan)))
    assert refused_field(store, engine) == "signature"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda c: c["fields"].update({"gpu.name": "Other GPU"}), "key"),
        (lambda c: c["fields"].update({"tensorrt.version": "8.5.3.1"}), "key"),
        (lambda c: c.update(key="0" * 64), "key"),
        (lambda c: c.update(build={"seconds": 2}), "signature"),
        (lambda c: c.update(created="2020"), "signature"),
        (lambda c: c["timing_cache"].update(sha256="0" * 64), "signature"),
        (lambda c: c.update(signature="0" * 64), "signature"),
        (lambda c: c.update(signature=""), "signature"),
        (lambda c: c.update(installation=THEIRS.installation), "installation"),
        (lambda c: c.update(schema_version=2), "schema_version"),
        (lambda c: c.pop("plan"), "plan"),
        (lambda c: c["plan"].update(bytes="12"), "plan.bytes"),
        (lambda c: c["plan"].update(bytes=True), "plan.bytes"),
        (lambda c: c["plan"].update(file="../../evil.plan"), "plan.file"),
        (lambda c: c["plan"].update(file=".."), "plan.file"),
        (lambda c: c.update(fields=[]), "fields"),
    ],
)
def test_an_altered_record(tmp_path: Path, change: Callable[[dict[str, Any]], None], field: str) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    edit(engine, change)
    assert refused_field(store, engine) == field


def test_an_unsigned_plan(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    edit(engine, lambda content: content.update(installation="", signature=""))
    engine = store.read(engine.folder)
    assert refused_field(store, engine) == "signature"
    assert store.read_plan(engine, trust=True) == PLAN


def test_a_foreign_plan(tmp_path: Path) -> None:
    engine = put(make_store(tmp_path, THEIRS))
    store = make_store(tmp_path)
    assert refused_field(store, engine) == "installation"
    with pytest.raises(EngineError, match=r"another installation .* `atrous build --trust`") as caught:
        store.read_plan(engine)
    assert (caught.value.expected, caught.value.found) == (MINE.installation, THEIRS.installation)


def test_trust_is_given_once_and_explicitly(tmp_path: Path) -> None:
    engine = put(make_store(tmp_path, THEIRS))
    store = make_store(tmp_path)
    trusted = store.trust(store.read(engine.folder))
    assert store.read_plan(store.read(engine.folder)) == PLAN
    assert trusted.record.build["trusted"] is True
    assert refused_field(make_store(tmp_path, THEIRS), engine) == "installation"


def test_trust_does_not_cover_a_damaged_plan(tmp_path: Path) -> None:
    engine = put(make_store(tmp_path, THEIRS))
    (engine.folder / engine.record.plan.file).write_bytes(PLAN[:-1])
    with pytest.raises(EngineError) as caught:
        make_store(tmp_path).trust(engine)
    assert caught.value.field == "plan.bytes"


def test_a_moved_engine(tmp_path: Path) -> None:
    """An engine must not be used under another's key."""
    store = make_store(tmp_path)
    engine = put(store)
    other = EngineKey({**FIELDS, "gpu.name": "Other GPU"})
    shutil.copytree(engine.folder, store.folder / other.digest)
    with pytest.raises(EngineError) as caught:
        store.read(store.folder / other.digest)
    assert caught.value.field == "key"
    with pytest.raises(EngineError) as caught:
        store.choose(other.fields)
    assert caught.value.field == "gpu.name"


def test_an_engine_folder_that_is_a_link(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.folder.mkdir()
    (tmp_path / "outside").mkdir()
    (store.folder / EngineKey(FIELDS).digest).symlink_to(tmp_path / "outside")
    with pytest.raises(EngineError, match="leaves the store"):
        put(store)
    assert list((tmp_path / "outside").iterdir()) == []


def test_links_out_of_the_store(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    path = engine.folder / engine.record.plan.file
    path.rename(tmp_path / "outside.plan")
    path.symlink_to(tmp_path / "outside.plan")
    assert refused_field(store, engine) == "path"


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"schema_version": NaN}', b"[" * 100_000, b"\xff"])
def test_records_that_are_none(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(EngineError):
        parse_record(text, path=tmp_path / RECORD_NAME)


def test_a_record_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    engine = put(store)
    monkeypatch.setattr("atrous.runtime.backends.tensorrt.store.MAX_RECORD_BYTES", 10)
    assert refused_field(store, engine) == "record.bytes"


# --- stale: built for something else ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("tensorrt.version", "10.14.1.48"),
        ("gpu.name", "Other GPU"),
        ("gpu.driver", "570.0"),
        ("onnx.sha256", "b" * 64),
        ("precision.name", "int8"),
    ],
)
def test_a_stale_engine_is_named_by_its_field(tmp_path: Path, name: str, now: str) -> None:
    store = make_store(tmp_path)
    put(store)
    with pytest.raises(EngineError) as caught:
        store.choose({**FIELDS, name: now})
    assert (caught.value.field, caught.value.expected, caught.value.found) == (name, now, FIELDS[name])
    assert f'{name} is "' in str(caught.value)


def test_the_nearest_engine_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    put(store, gpu__name="Far GPU", gpu__driver="1.0")
    put(store, gpu__driver="570.0")
    with pytest.raises(EngineError, match=r'gpu\.driver is "570\.0" there and "550\.54" here') as caught:
        store.choose(FIELDS)
    assert caught.value.field == "gpu.driver"


def test_an_empty_store(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert store.list_engines() == []
    assert store.collect_garbage() == {}
    with pytest.raises(EngineError, match="build one with `atrous build`"):
        store.choose(FIELDS)


# --- choosing --------------------------------------------------------------------------------------------------------


def test_choose_by_some_fields_and_shapes(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    put(store)
    wanted = {"precision.name": "fp16", "gpu.name": "Some GPU"}
    assert store.choose(wanted, {"data": (2, 3, 129, 33)}).fields == FIELDS
    with pytest.raises(EngineError, match="no profile of these engines allows data 1x3x130x33") as caught:
        store.choose(wanted, {"data": (1, 3, 130, 33)})
    assert caught.value.field == "profiles"
    with pytest.raises(EngineError) as caught:
        store.choose({**wanted, "gpu.name": "Other GPU"})
    assert caught.value.field == "gpu.name"


def test_own_engines_are_chosen_first(tmp_path: Path) -> None:
    put(make_store(tmp_path), gpu__driver="1.0")
    time.sleep(0.01)  # records are dated by the millisecond
    put(make_store(tmp_path, THEIRS))
    assert make_store(tmp_path).choose({"precision.name": "fp16"}).fields["gpu.driver"] == "1.0"


@pytest.mark.parametrize(
    "profiles",
    [
        5,
        [5],
        [{}],
        [{"data": 5}],
        [{"data": {"min": 1, "max": [1]}}],
        [{"data": {"min": ["1", 3, 33, 33], "max": [1, 3, 33, 33]}}],
        [{"data": {"min": [1, 3, 33, 33], "max": [1, 3, 33, None]}}],
        [{"data": {"min": [1, 3, 33, 33], "max": [1, 3, 33, [33]]}}],
        [{"data": {"min": [1, 3, 33], "max": [1, 3, 33, 33]}}],
        ["data"],
    ],
)
def test_odd_profiles_take_nothing(tmp_path: Path, profiles: Any) -> None:
    engine = put(make_store(tmp_path), profiles=profiles)
    assert engine.fits({"data": (1, 3, 33, 33)}) == (profiles == 5)


# --- garbage ---------------------------------------------------------------------------------------------------------


def test_garbage(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    good, stale, broken = put(store), put(store, onnx__sha256="b" * 64), put(store, gpu__name="broken")
    foreign = put(make_store(tmp_path, THEIRS), gpu__name="foreign")
    (broken.folder / broken.record.plan.file).write_bytes(b"")
    part = good.folder / f".{'0' * 32}.plan.{'a' * 12}.part"
    part.touch()
    os.utime(part, (0, 0))
    young = good.folder / f".{'1' * 32}.plan.{'a' * 12}.part"
    young.touch()

    def find_reason(engine: StoredEngine) -> str:
        return "" if engine.fields["onnx.sha256"] == "a" * 64 else "no such graph"

    found = store.collect_garbage(find_reason, dry_run=True)
    assert set(found) == {stale.folder, broken.folder, part}
    assert found[stale.folder] == "no such graph"
    assert good.folder.exists()
    assert store.collect_garbage(find_reason) == found
    left = {good.folder.name, foreign.folder.name}
    assert {path.name for path in store.folder.iterdir()} == left
    assert young.exists()
    assert not part.exists()


def test_a_folder_that_is_being_written_is_no_garbage(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    folder = store.folder / ("0" * 64)
    folder.mkdir(parents=True)
    (folder / f"{'0' * 32}.plan").write_bytes(b"half")
    assert store.collect_garbage(dry_run=True) == {}
    os.utime(folder, (0, 0))
    assert set(store.collect_garbage(dry_run=True)) == {folder}


def make_old(*paths: Path) -> None:
    """Date files and folders back, so that they look abandoned."""
    for path in paths:
        os.utime(path, (0, 0), follow_symlinks=False)


def test_garbage_leaves_foreign_files_and_folders(tmp_path: Path) -> None:
    """Only what a store can have written is removed, whatever folder the store is pointed at."""
    store = make_store(tmp_path)
    outside = tmp_path / "home" / ("f" * 64)
    linked = store.folder / ("c" * 64)
    mixed, only_foreign = store.folder / ("d" * 64), store.folder / ("e" * 64)
    foreign = [
        store.folder / "Documents" / "thesis.tex",
        store.folder / ("A" * 64) / "engine.json",
        store.folder / ("a" * 63) / "engine.json",
        store.folder / ("a" * 64 + "\n") / "engine.json",
        outside / "engine.json",
        mixed / "notes.txt",
        mixed / f"{'0' * 32}.plan" / "inside",
        mixed / "old.plan",
        mixed / ".other.abcdefabcdef.part",
        only_foreign / "notes.txt",
    ]
    own = [mixed / "engine.json", mixed / f"{'1' * 32}.plan", mixed / f".{'1' * 32}.timing.abcdefabcdef.part"]
    for path in (*foreign, *own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    linked.symlink_to(outside)
    make_old(*tmp_path.rglob("*"))
    removed = store.collect_garbage()
    assert set(removed) == {mixed}
    assert all(path.exists() for path in foreign)
    assert linked.is_symlink()
    assert not any(path.exists() for path in own)
    make_old(*tmp_path.rglob("*"))
    assert store.collect_garbage() == {}


def test_a_store_that_is_a_link(tmp_path: Path) -> None:
    """A link named "engines" in a downloaded bundle must not lead the store out of the bundle."""
    bundle, home = tmp_path / "bundle", tmp_path / "home"
    bundle.mkdir()
    put(make_store(home))
    (bundle / "engines").symlink_to(home / "engines")
    with pytest.raises(EngineError, match="is a link") as caught:
        find_store(bundle)
    assert caught.value.field == "path"
    with pytest.raises(EngineError, match="is a link"):
        make_store(bundle).collect_garbage()
    (tmp_path / "alias").symlink_to(home)  # a link to the bundle itself is the user's own
    assert find_store(tmp_path / "alias") == tmp_path / "alias" / "engines"


# --- where -----------------------------------------------------------------------------------------------------------


def test_where_engines_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_store(tmp_path) == tmp_path / "engines"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    outside = find_store(tmp_path)
    assert outside.parent == tmp_path / "cache" / "atrous" / "engines"
    assert find_store(tmp_path / "other") != outside
