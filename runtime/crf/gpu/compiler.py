"""Compiles the kernels by NVRTC, once for each architecture and compiler: the result is kept in the user's cache."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

from ....bundle.files import write_file
from ....dependencies import OPTIONAL, import_optional
from ....errors import BackendError, MissingDependencyError, OutputError
from ...backends.tensorrt.store import find_runtime_cache
from .source import read_source

#: What makes the results equal to the CPU's: no fused multiply-adds, correct rounding, no subnormal numbers.
OPTIONS = ("--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=true")


def load_cubin(architecture: str) -> bytes:
    """Return the kernels for an architecture such as "sm_90", from the cache or compiled now.

    Raises:
        MissingDependencyError: NVRTC is not installed.
        BackendError: NVRTC does not know the architecture, or refuses the source.
    """
    compiler = _Compiler()
    key = "\n".join((architecture, compiler.version, *OPTIONS, read_source()))
    path = find_runtime_cache(hashlib.sha256(key.encode()).hexdigest()) / "dense_crf.cubin"
    with suppress(OSError):
        return path.read_bytes()
    cubin = compiler.compile(architecture)
    with suppress(OutputError):  # a cache that cannot be written costs seconds at each start
        write_file(path, cubin)
    return cubin


class _Compiler:
    """NVRTC of cuda-bindings."""

    def __init__(self) -> None:
        import_optional("cuda.bindings")
        try:
            from cuda.bindings import nvrtc

            self._nvrtc: Any = nvrtc
            major, minor = self._call("nvrtcVersion")
        except BackendError:
            raise
        except Exception as error:  # its library is loaded by the first call
            raise MissingDependencyError(
                f"NVRTC, which compiles the dense CRF for a GPU, cannot be loaded ({error}). Install it: "
                f"{OPTIONAL['cuda.bindings'].pip_line}"
            ) from error
        self.version = f"{major}.{minor}"

    def compile(self, architecture: str) -> bytes:
        """Compile the kernels to a cubin."""
        known = {f"sm_{number}" for number in self._call("nvrtcGetSupportedArchs")}
        if architecture not in known:
            raise BackendError(
                f"NVRTC {self.version} does not compile for {architecture}: install another version of "
                f"nvidia-cuda-nvrtc and cuda-bindings, or leave the dense CRF on the CPU"
            )
        program = self._call("nvrtcCreateProgram", read_source().encode(), b"dense_crf.cu", 0, [], [])
        try:
            options = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS)]
            try:
                self._call("nvrtcCompileProgram", program, len(options), options)
            except BackendError as error:
                log = self._read(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").decode(errors="replace")
                raise BackendError(f"{error}: {log.strip()}") from None
            return self._read(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")
        finally:
            self._call("nvrtcDestroyProgram", program)

    def _read(self, program: Any, size: str, content: str) -> bytes:
        buffer = b" " * int(self._call(size, program))
        self._call(content, program, buffer)
        return buffer

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._nvrtc, name)(*arguments)
        if int(status) != 0:
            raise BackendError(f"NVRTC's {name} failed: {getattr(status, 'name', status)} ({int(status)})")
        return results[0] if len(results) == 1 else tuple(results) or None
