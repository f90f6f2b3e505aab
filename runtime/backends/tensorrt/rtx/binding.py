"""TensorRT for RTX through ctypes, for the one library version whose C++ tables are known (experimental).

NVIDIA publishes no Python module for it on PyPI, only the libraries inside ONNX Runtime's provider package. A `Binding`
has the names of NVIDIA's Python module that a build uses, so that `plan.BuildPlan.run` makes the same calls on it. It
must run in a child process: a wrong table crashes the process, which no `except` catches.

The numbers below are positions in virtual tables (Itanium C++ ABI, x86-64) of the headers of 1.5 and 1.6, and are valid
for 1.7.1. An object of the API is a pair of pointers: its own table, whose entry 1 deletes it, and its implementation,
whose table has the functions. The parser and its errors are plain interfaces.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

_POINTER, _SIZE, _INT, _TEXT, _BOOL = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_char_p, ctypes.c_bool
_MAX_RANK = 8
_DELETE, _DELETE_PARSER = 1, 7
_LOGGER_LANGUAGE = 0  # C++


class BuilderFlag(IntEnum):
    """nvinfer1::BuilderFlag, as far as a build uses it."""

    TF32 = 6


class ProfilingVerbosity(IntEnum):
    """nvinfer1::ProfilingVerbosity."""

    DETAILED = 2


class MemoryPoolType(IntEnum):
    """nvinfer1::MemoryPoolType, as far as a build uses it."""

    WORKSPACE = 0


class ComputeCapability(IntEnum):
    """nvinfer1::ComputeCapability, without CURRENT, which needs a GPU."""

    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120
    SM121 = 121


class Severity(IntEnum):
    """nvinfer1::ILogger::Severity."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class _Dims(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int32), ("sizes", ctypes.c_int64 * _MAX_RANK))


def _read_pointer(address: int, index: int) -> int:
    found = ctypes.cast(address, ctypes.POINTER(_POINTER))[index]
    assert found is not None
    return int(found)


def _call(address: int, position: int, result: Any = None, *arguments: Any) -> Any:
    """Call the function at a position of an object's table; arguments are ctypes values."""
    kind = ctypes.CFUNCTYPE(result, _POINTER, *(type(value) for value in arguments))
    return kind(_read_pointer(_read_pointer(address, 0), position))(address, *arguments)


class _Object:
    """An object of the API; deleted with its last reference, if this binding owns it."""

    _delete: int | None = _DELETE
    address = 0

    def __init__(self, address: int | None, kind: str):
        if not address:
            raise RuntimeError(f"the library makes no {kind}")
        self.address = address

    def __del__(self) -> None:
        if self._delete is not None and self.address:
            _call(self.address, self._delete)

    def call(self, position: int, result: Any = None, *arguments: Any) -> Any:
        """Call a function of the implementation."""
        return _call(_read_pointer(self.address, 1), position, result, *arguments)


class ILogger:
    """A logger to subclass: `log` receives every message, in any thread.

    Its second function should return a pair of registers, the interface's name and version; ctypes returns the first
    only. The library never calls it.
    """

    def __init__(self) -> None:
        self._kind = ctypes.create_string_buffer(b"ILogger")
        number, address, none = (ctypes.CFUNCTYPE(kind, _POINTER) for kind in (ctypes.c_int, _POINTER, None))
        write = ctypes.CFUNCTYPE(None, _POINTER, _INT, _TEXT)
        self._functions: tuple[Any, ...] = (
            number(lambda this: _LOGGER_LANGUAGE),
            address(lambda this: ctypes.addressof(self._kind)),
            none(lambda this: None),
            none(lambda this: None),
            write(self._write),
        )
        functions = [ctypes.cast(function, _POINTER).value for function in self._functions]
        self._table = (_POINTER * len(functions))(*functions)
        self._object = (_POINTER * 2)(ctypes.addressof(self._table), None)

    @property
    def address(self) -> int:
        """The address of the C++ object."""
        return ctypes.addressof(self._object)

    def log(self, severity: Severity, message: str) -> None:
        """Receive a message."""
        raise NotImplementedError

    def _write(self, this: int, severity: int, message: bytes) -> None:
        self.log(Severity(severity), message.decode("utf-8", "replace"))


class _ParserError:
    def __init__(self, address: int):
        self._address = address

    def desc(self) -> str:
        return self._read(1)

    def node(self) -> int:
        return int(_call(self._address, 5, ctypes.c_int))

    def node_name(self) -> str:
        return self._read(6)

    def node_operator(self) -> str:
        return self._read(7)

    def _read(self, position: int) -> str:
        return (_call(self._address, position, _TEXT) or b"").decode("utf-8", "replace")


class _Network(_Object):
    pass


class _Parser(_Object):
    _delete = _DELETE_PARSER

    def parse(self, model: bytes) -> bool:
        return bool(_call(self.address, 0, _BOOL, _TEXT(model), _SIZE(len(model)), _TEXT(None)))

    @property
    def num_errors(self) -> int:
        return int(_call(self.address, 3, ctypes.c_int))

    def get_error(self, index: int) -> _ParserError:
        return _ParserError(_call(self.address, 4, _POINTER, ctypes.c_int(index)))


class _Profile(_Object):
    _delete = None  # the builder owns it

    def set_shape(self, name: str, minimum: Sequence[int], optimum: Sequence[int], maximum: Sequence[int]) -> None:
        for which, shape in enumerate((minimum, optimum, maximum)):
            dims = _Dims(len(shape), (ctypes.c_int64 * _MAX_RANK)(*shape))
            place = _POINTER(ctypes.addressof(dims))
            if not self.call(2, _BOOL, _TEXT(name.encode()), _INT(which), place):
                raise ValueError(f'the profile of "{name}" is refused: {minimum}, {optimum}, {maximum}')


class _Config(_Object):
    def set_flag(self, flag: BuilderFlag) -> None:
        self.call(9, None, _INT(flag))

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.call(8, None, _INT(flag))

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.call(32, None, _INT(pool), _SIZE(size))

    def add_optimization_profile(self, profile: _Profile) -> int:
        return int(self.call(23, _INT, _POINTER(profile.address)))

    def set_compute_capability(self, capability: ComputeCapability, index: int) -> bool:
        return bool(self.call(57, _BOOL, _INT(capability), _INT(index)))

    def __setattr__(self, name: str, value: Any) -> None:
        setters: dict[str, Callable[[], object]] = {
            "profiling_verbosity": lambda: self.call(25, None, _INT(value)),
            "builder_optimization_level": lambda: self.call(36, None, _INT(value)),
            "num_compute_capabilities": lambda: self._set_count(value),
        }
        if name in setters:
            setters[name]()
        else:
            super().__setattr__(name, value)

    def _set_count(self, count: int) -> None:
        if not self.call(55, _BOOL, _INT(count)):
            raise ValueError(f"the library refuses {count} targets")


class _HostMemory(_Object):
    def __bytes__(self) -> bytes:
        return ctypes.string_at(self.call(2, _POINTER), self.call(3, _SIZE))


class _Builder(_Object):
    def create_network(self, flags: int = 0) -> _Network:
        return _Network(self.call(6, _POINTER, ctypes.c_uint32(flags)), "network")

    def create_builder_config(self) -> _Config:
        return _Config(self.call(5, _POINTER), "builder config")

    def create_optimization_profile(self) -> _Profile:
        return _Profile(self.call(7, _POINTER), "optimization profile")

    def build_serialized_network(self, network: _Network, config: _Config) -> _HostMemory | None:
        found = self.call(11, _POINTER, _POINTER(network.address), _POINTER(config.address))
        return _HostMemory(found, "plan") if found else None


Logger = ILogger  # `Binding` has an attribute of the first name


class Binding:
    """The module: NVIDIA's names on two loaded libraries, whose version the caller has checked."""

    BuilderFlag = BuilderFlag
    ProfilingVerbosity = ProfilingVerbosity
    MemoryPoolType = MemoryPoolType
    ComputeCapability = ComputeCapability
    ILogger: type = ILogger

    def __init__(self, runtime: ctypes.CDLL, parser: ctypes.CDLL, version: str):
        """Bind libtensorrt_rtx and libtensorrt_onnxparser_rtx; `version` is such as "1.7.1.116"."""
        self.__version__ = version
        self._runtime, self._parser = runtime, parser
        runtime.createInferBuilder_INTERNAL.restype = parser.createNvOnnxParser_INTERNAL.restype = _POINTER

    def Builder(self, logger: Logger) -> _Builder:  # noqa: N802 - NVIDIA's name
        """Make a builder."""
        version = self._runtime.getInferLibVersion()
        return _Builder(self._runtime.createInferBuilder_INTERNAL(_POINTER(logger.address), version), "builder")

    def OnnxParser(self, network: _Network, logger: Logger) -> _Parser:  # noqa: N802 - NVIDIA's name
        """Make a parser that fills a network."""
        version = self._parser.getNvOnnxParserVersion()
        places = _POINTER(network.address), _POINTER(logger.address)
        return _Parser(self._parser.createNvOnnxParser_INTERNAL(*places, version), "parser")
