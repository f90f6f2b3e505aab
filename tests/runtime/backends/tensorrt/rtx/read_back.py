"""Sets everything that a build sets, and prints what the library's own getters return; run as a child process.

The positions of the getters are those beside the setters in the same headers.
"""

from __future__ import annotations

import ctypes
import json

from atrous.runtime.backends.tensorrt import compat
from atrous.runtime.backends.tensorrt.rtx.library import find_library, load_library

GET_FLAG, GET_VERBOSITY, GET_POOL, GET_LEVEL, GET_COUNT, GET_CAPABILITY = 10, 26, 33, 37, 56, 58


def main() -> None:
    trt = load_library(find_library())
    logger = compat.make_logger(trt, [])
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    number = ctypes.c_int32
    found = {"tf32 at first": config.call(GET_FLAG, ctypes.c_bool, number(trt.BuilderFlag.TF32))}
    config.clear_flag(trt.BuilderFlag.TF32)
    found["tf32 cleared"] = config.call(GET_FLAG, ctypes.c_bool, number(trt.BuilderFlag.TF32))
    config.set_flag(trt.BuilderFlag.TF32)
    found["tf32 set"] = config.call(GET_FLAG, ctypes.c_bool, number(trt.BuilderFlag.TF32))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    found["verbosity"] = config.call(GET_VERBOSITY, number)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 12345678)
    found["workspace"] = config.call(GET_POOL, ctypes.c_size_t, number(trt.MemoryPoolType.WORKSPACE))
    config.builder_optimization_level = 1
    found["level"] = config.call(GET_LEVEL, number)
    config.num_compute_capabilities = 2
    for index, member in enumerate((trt.ComputeCapability.SM89, trt.ComputeCapability.SM120)):
        assert config.set_compute_capability(member, index)
    found["targets"] = [config.call(GET_CAPABILITY, number, number(index)) for index in range(2)]
    found["target count"] = config.call(GET_COUNT, number)
    found["sm90"] = config.set_compute_capability(90, 0)
    del config, builder
    print(json.dumps(found))
