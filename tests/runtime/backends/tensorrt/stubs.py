"""Stub TensorRT modules of five lines that need no GPU: each has the names of the real one and rejects all others.

`names.json` holds the names of real modules, read from the wheels of these versions. 9.3 has no wheel that can be
installed; its names are those of 8.6.1 and the additions in its documentation. The behavior is the minimum that a build
needs: the parser checks the ONNX file with the onnx library, a plan is JSON of all settings of the builder, and the
inspector writes the schema of its line. If typing is weak, a layer is narrow only if a flag allows it and no pin
forbids it, as in the real library.

Lifetimes are as in NVIDIA's bindings and parser, and a violation raises instead of crashing: a network keeps its parser
alive, so the parser is freed after it; a parser whose network had an error recorder writes to the network when it is
freed; builder, parser and runtime use the logger to their end; a config does not keep its timing cache; networks,
configs and profiles need their builder, an engine its runtime, an inspector its engine.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx

LINES = {"8.5": "8.5.3.1", "8.6": "8.6.1", "9": "9.3.0", "10": "10.13.3.9", "11": "11.4.0.106"}
MODULE_FIELDS = {"__version__", "__name__", "behavior"}


@cache
def read_names() -> dict[str, dict[str, tuple[str, ...]]]:
    """Version -> class -> names."""
    text = (Path(__file__).parent / "names.json").read_text()
    names = {
        version: {kind: tuple(words.split()) for kind, words in classes.items()}
        for version, classes in json.loads(text).items()
    }
    names["9.3.0"] = _make_v9(names["8.6.1"])
    return names


def _make_v9(older: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    added = {
        "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
        "BuilderFlag": ("BF16", "ERROR_ON_TIMING_CACHE_MISS", "DISABLE_COMPILATION_CACHE", "WEIGHTLESS"),
        "IBuilderConfig": ("progress_monitor",),
        "DataType": ("INT64", "BF16"),
        "ParserError": ("node_name", "node_operator"),
        "IProgressMonitor": ("phase_start", "phase_finish", "step_complete"),
    }
    return {kind: (*older.get(kind, ()), *added.get(kind, ())) for kind in {*older, *added}}


class Behavior:
    """Behavior of a stub, set by a test, and its records.

    Attributes:
        fail_build: build_serialized_network returns None and logs this.
        refuse_narrow: names of layers that compute in FP32 although the graph has them narrower (weak typing only).
        parser_errors: errors that the parser reports beside its own.
        refuse_plans: deserialize_cuda_engine returns None.
        logged_at_load: an error that deserialize_cuda_engine logs.
    """

    def __init__(self) -> None:
        self.fail_build = ""
        self.refuse_narrow: set[str] = set()
        self.parser_errors: list[dict[str, Any]] = []
        self.refuse_plans = False
        self.logged_at_load = ""
        self.names_only = False
        self.touched: set[str] = set()
        self.builds = 0
        self.made: list[weakref.ref[Any]] = []

    def list_alive(self) -> list[str]:
        """The classes of the objects with owners that are not freed yet."""
        return [other()._kind for other in self.made if other() is not None]


def make_tensorrt(line: str, version: str | None = None, names: dict[str, tuple[str, ...]] | None = None) -> Any:
    """A stub of a line's module, or of one of the recorded versions, or of a version with these names."""
    version = version or LINES[line]
    names = names or read_names()[version]
    module = SimpleNamespace(__version__=version, __name__="tensorrt", behavior=Behavior())
    for kind, allowed in names.items():
        if kind in _ENUMERATIONS:
            setattr(module, kind, _make_enumeration(kind, allowed, version))
        elif kind in _CLASSES:
            setattr(module, kind, _make_class(kind, allowed, module))
    return _Strict(module)


class _Strict:
    """A module whose errors state which version lacks a name."""

    def __init__(self, module: SimpleNamespace) -> None:
        object.__setattr__(self, "_module", module)

    def __getattr__(self, name: str) -> Any:
        module = object.__getattribute__(self, "_module")
        if not hasattr(module, name):
            raise AttributeError(f"module 'tensorrt' {module.__version__} has no attribute '{name}'")
        return getattr(module, name)


_ENUMERATIONS = {
    "BuilderFlag",
    "DataType",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "ProfilingVerbosity",
    "TacticSource",
}


def _make_enumeration(kind: str, members: tuple[str, ...], version: str) -> Any:
    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            raise AttributeError(f"{kind} of TensorRT {version} has no member {name}")

    class Member:
        def __init__(self, name: str, value: int) -> None:
            self.name, self.value = name, value

        def __int__(self) -> int:
            return self.value

        def __repr__(self) -> str:
            return f"{kind}.{self.name}"

    enumeration = Meta(kind, (), {})
    found = {name: Member(name, value) for value, name in enumerate(members)}
    for name, member in found.items():
        setattr(enumeration, name, member)
    enumeration.__members__ = found
    return enumeration


def _make_class(kind: str, allowed: tuple[str, ...], module: SimpleNamespace) -> type:
    base = _CLASSES[kind]
    hidden = {
        name: _missing(kind, name, module.__version__)
        for name in dir(base)
        if not name.startswith("_") and name not in allowed
    }
    body = {"_trt": module, "_allowed": frozenset(allowed), "_kind": kind, **hidden}
    for name in allowed:
        if not hasattr(base, name):
            body[name] = None  # a name that exists and that nothing here uses
    return type(kind, (base,), body)


class _missing:  # noqa: N801
    """A descriptor of a name that the version lacks."""

    def __init__(self, kind: str, name: str, version: str) -> None:
        self.text = f"'{kind}' object of TensorRT {version} has no attribute '{name}'"

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(self.text)

    def __set__(self, instance: Any, value: Any) -> None:
        raise AttributeError(self.text)


class LifetimeError(AssertionError):
    """An object is used or freed after another that it needs: the real library crashes."""


class _Object:
    _trt: Any
    _allowed: frozenset[str]
    _kind: str
    _needed: tuple[weakref.ref[Any], ...] = ()

    def _need(self, *others: Any) -> None:
        self._trt.behavior.made.append(weakref.ref(self))
        object.__setattr__(self, "_needed", tuple(weakref.ref(other) for other in others))

    def _check_lifetime(self) -> None:
        if any(other() is None for other in self._needed):
            raise LifetimeError(f"{self._kind} outlives what it needs")

    def __del__(self) -> None:
        self._check_lifetime()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self._allowed:
            raise AttributeError(f"'{self._kind}' object of TensorRT {self._trt.__version__} has no attribute '{name}'")
        self._trt.behavior.touched.add(f"{self._kind}.{name}")
        object.__setattr__(self, name, value)


class _Logger:
    def __init__(self) -> None:
        pass


class _Recorder:
    def __init__(self) -> None:
        pass


class _Monitor:
    def __init__(self) -> None:
        pass


class _Builder(_Object):
    def __init__(self, logger: Any) -> None:
        self._need(logger)

    @property
    def _logger(self) -> Any:
        self._check_lifetime()
        return self._needed[0]()

    @property
    def _recorders(self) -> tuple[Any, ...]:
        return (self.error_recorder,) if self.error_recorder is not None else ()

    def create_network(self, flags: int = 0) -> Any:
        members = self._trt.NetworkDefinitionCreationFlag.__members__
        names = {name for name, member in members.items() if flags & 1 << int(member)}
        network = self._trt.INetworkDefinition(names)
        network._need(self, *self._recorders)
        return network

    def create_builder_config(self) -> Any:
        config = self._trt.IBuilderConfig()
        config._need(self, *self._recorders)
        return config

    def create_optimization_profile(self) -> Any:
        profile = self._trt.IOptimizationProfile()
        profile._need(self)
        return profile

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        behavior = self._trt.behavior
        network._check_lifetime()
        config._check_lifetime()
        behavior.builds += 1
        if behavior.fail_build:
            severity = SimpleNamespace(name="ERROR")
            self._logger.log(severity, behavior.fail_build)
            return None
        precisions = {"FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS"} & config._flags
        if "STRONGLY_TYPED" in network._flags and precisions:
            self._logger.log(SimpleNamespace(name="ERROR"), f"{precisions} with a strongly typed network")
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building", None, 2)
            monitor.step_complete("Building", 0)
            monitor.step_complete("Building", 1)
            monitor.phase_finish("Building")
        cache = config.get_timing_cache()
        if cache is not None:
            cache._content += b"timed;" if not cache._content else b""
        settings = {
            "version": self._trt.__version__,
            "network_flags": sorted(network._flags),
            "flags": sorted(config._flags),
            "model": network._sha256,
            "layers": network._describe(config._flags),
            "ends": network._ends,
            "profiles": [profile._shapes for profile in config._profiles],
            "settings": {
                k: repr(v) for k, v in vars(config).items() if not k.startswith("_") and k != "progress_monitor"
            },
            "pools": config._pools,
            "tactic_sources": config._sources,
        }
        return bytearray(json.dumps(settings).encode())


_SETTINGS = ("profiling_verbosity", "builder_optimization_level", "hardware_compatibility_level")


class _Config(_Object):
    def __init__(self) -> None:
        for name, value in (
            ("_flags", {"TF32"}),
            ("_profiles", []),
            ("_pools", {}),
            ("_cache", None),
            ("_sources", None),
        ):
            object.__setattr__(self, name, value)

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._pools[pool.name] = size

    def set_tactic_sources(self, bits: int) -> bool:
        members = self._trt.TacticSource.__members__
        object.__setattr__(
            self, "_sources", sorted(name for name, member in members.items() if bits & 1 << int(member))
        )
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        if not profile._shapes:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        return self._trt.ITimingCache(bytes(content))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        object.__setattr__(self, "_cache", weakref.ref(cache))
        return True

    def get_timing_cache(self) -> Any:
        if self._cache is None:
            return None
        if self._cache() is None:
            raise LifetimeError("IBuilderConfig outlives its timing cache")
        return self._cache()


class _Cache(_Object):
    def __init__(self, content: bytes) -> None:
        object.__setattr__(self, "_content", content)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def serialize(self) -> Any:
        return bytearray(self._content)


class _Profile(_Object):
    def __init__(self) -> None:
        object.__setattr__(self, "_shapes", {})

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        if not len(low) == len(best) == len(high):
            raise ValueError("shapes of different ranks")
        self._shapes[name] = [list(low), list(best), list(high)]


class _Network(_Object):
    def __init__(self, flags: set[str]) -> None:
        for name, value in (("_flags", flags), ("_nodes", []), ("_sha256", ""), ("_ends", []), ("_parsers", [])):
            object.__setattr__(self, name, value)

    @property
    def _is_strong(self) -> bool:
        members = self._trt.BuilderFlag.__members__
        return "STRONGLY_TYPED" in self._flags or "FP16" not in members

    @property
    def num_layers(self) -> int:
        return len(self._nodes)

    def get_layer(self, index: int) -> Any:
        return self._nodes[index]

    def _describe(self, flags: set[str]) -> list[dict[str, str]]:
        layers = []
        for layer in self._nodes:
            kind = layer._type
            if not self._is_strong:
                needed = {"Half": "FP16", "Int8": "INT8"}.get(kind, "")
                pinned = layer._pinned and "OBEY_PRECISION_CONSTRAINTS" in flags
                if needed and (needed not in flags or pinned or layer.name in self._trt.behavior.refuse_narrow):
                    kind = "Float"
            layers.append({"name": layer.name, "type": kind, "op": layer._op})
        return layers


class _Layer(_Object):
    def __init__(self, name: str, op: str, kind: str) -> None:
        for key, value in (("_op", op), ("_type", kind), ("_pinned", False), ("_name", name)):
            object.__setattr__(self, key, value)

    @property
    def name(self) -> str:
        return self._name

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def precision(self) -> Any:
        return None

    @precision.setter
    def precision(self, value: Any) -> None:
        object.__setattr__(self, "_pinned", value.name == "FLOAT")

    def set_output_type(self, index: int, kind: Any) -> None:
        assert kind.name == "FLOAT"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "precision" and "precision" in self._allowed:
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)


class _Parser(_Object):
    def __init__(self, network: Any, logger: Any) -> None:
        network._check_lifetime()
        network._parsers.append(self)
        object.__setattr__(self, "_parsed", weakref.ref(network))
        object.__setattr__(self, "_errors", [])
        has_recorder = len(network._needed) > 1
        self._need(logger, *((network,) if has_recorder else ()))

    @property
    def _network(self) -> Any:
        if self._parsed() is None:
            raise LifetimeError("OnnxParser is used after its network")
        return self._parsed()

    def parse(self, model: bytes) -> bool:
        errors = list(self._trt.behavior.parser_errors)
        flags = self._network._flags
        members = self._trt.NetworkDefinitionCreationFlag.__members__
        major = int(self._trt.__version__.split(".")[0])
        if "EXPLICIT_BATCH" in members and "EXPLICIT_BATCH" not in flags and major < 10:
            errors.append(
                {
                    "desc": "This version of the ONNX parser only supports TensorRT INetworkDefinitions with an "
                    "explicit batch dimension",
                    "node": -1,
                }
            )
        proto = onnx.load_from_string(model)
        object.__setattr__(self, "_errors", [self._trt.ParserError(error) for error in errors])
        if errors:
            return False
        self._network._nodes.extend(_make_layers(self._trt, proto))
        object.__setattr__(self._network, "_sha256", hashlib.sha256(model).hexdigest())
        ends = [value.name for value in (*proto.graph.input, *proto.graph.output)]
        object.__setattr__(self._network, "_ends", ends)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


def _make_layers(trt: Any, proto: onnx.ModelProto) -> list[Any]:
    """One layer for each node, with the type that the onnx library infers."""
    inferred = onnx.shape_inference.infer_shapes(proto)
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.input)}
    kinds |= {v.name: v.type.tensor_type.elem_type for v in inferred.graph.output}
    makers = {name: node for node in proto.graph.node for name in node.output}
    words = {onnx.TensorProto.FLOAT: "Float", onnx.TensorProto.FLOAT16: "Half"}
    layers = []
    for node in proto.graph.node:
        maker = makers.get(node.input[0]) if node.input else None
        kind = words.get(kinds.get(node.output[0], 0), "Int32")
        if maker is not None and maker.op_type == "DequantizeLinear":
            kind = "Int8"
        layers.append(trt.ILayer(node.name, node.op_type, kind))
    return layers


class _ParserError(_Object):
    def __init__(self, error: dict[str, Any]) -> None:
        object.__setattr__(self, "_error", error)

    def desc(self) -> str:
        return str(self._error["desc"])

    def node(self) -> int:
        return int(self._error["node"])

    def node_name(self) -> str:
        return str(self._error.get("name", ""))

    def node_operator(self) -> str:
        return str(self._error.get("operator", ""))


class _Runtime(_Object):
    def __init__(self, logger: Any) -> None:
        self._need(logger)

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        self._check_lifetime()
        if self._trt.behavior.logged_at_load:
            self._needed[0]().log(SimpleNamespace(name="ERROR"), self._trt.behavior.logged_at_load)
        settings = json.loads(bytes(plan))
        if self._trt.behavior.refuse_plans or settings["version"] != self._trt.__version__:
            return None
        engine = self._trt.ICudaEngine(settings)
        engine._need(self)
        return engine


class _Engine(_Object):
    def __init__(self, settings: dict[str, Any]) -> None:
        object.__setattr__(self, "_settings", settings)

    def create_engine_inspector(self) -> Any:
        self._check_lifetime()
        inspector = self._trt.EngineInspector(self._settings)
        inspector._need(self)
        return inspector


class _Inspector(_Object):
    def __init__(self, settings: dict[str, Any]) -> None:
        object.__setattr__(self, "_settings", settings)

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        self._check_lifetime()
        is_new = int(self._trt.__version__.split(".")[0]) >= 11
        layers: list[Any] = []
        for layer in self._settings["layers"]:
            tensor = {"Name": "t", "Location": "Device", "Dimensions": [1]}
            tensor |= (
                {"Format": "Row major linear", "Datatype": layer["type"]}
                if is_new
                else {"Format/Datatype": layer["type"]}
            )
            kind = "Convolution" if layer["op"] == "Conv" else layer["op"]
            layers.append({"Name": layer["name"], "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor]})
        if self._trt.behavior.names_only:
            layers = [layer["Name"] for layer in layers]
        ends: Any = self._settings["ends"]
        if is_new:
            ends = [{"Name": name, "IOMode": "Input", "DataType": "Float"} for name in ends]
        return json.dumps({"Layers": layers, "I/O Tensors" if is_new else "Bindings": ends})


_CLASSES: dict[str, type] = {
    "ILogger": _Logger,
    "IErrorRecorder": _Recorder,
    "IProgressMonitor": _Monitor,
    "Builder": _Builder,
    "IBuilderConfig": _Config,
    "ITimingCache": _Cache,
    "IOptimizationProfile": _Profile,
    "INetworkDefinition": _Network,
    "ILayer": _Layer,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "Runtime": _Runtime,
    "ICudaEngine": _Engine,
    "EngineInspector": _Inspector,
}
