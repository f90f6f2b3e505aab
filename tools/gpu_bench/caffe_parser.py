"""NVIDIA's Caffe parser, which TensorRT 8.5 still has, on the Caffe files of the same net: an independent check.

It does not support Interp, so the net ends at fc8; `hole` is written as dilation. Its networks have an implicit batch
dimension, which the rest of the project never uses, so the calls for it are here.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from atrous.errors import BackendError
from atrous.runtime.backends.protocol import Array
from atrous.runtime.backends.tensorrt.driver import CudaDriver

from .cases import IMAGES, Case
from .job import Job, compare

MEAN_BGR = (104.008, 116.669, 122.675)  # DeepLab's mean, as in the bundle
_WORKSPACE_BYTES = 2 << 30


def run_caffe_parser(job: Job, case: Case, trt: Any, driver: CudaDriver, logger: Any) -> dict[str, Any]:
    """Build the net from its Caffe files, run the case's images one by one, and compare fc8 with the reference.

    Raises:
        BackendError: if this TensorRT has no Caffe parser or rejects the net.
    """
    if not hasattr(trt, "CaffeParser"):
        raise BackendError(f"TensorRT {trt.__version__} has no Caffe parser; use 8.5")
    engine = build_from_caffe(job, trt, logger)
    images = next(iter(job.make_feeds(case).values()))[:IMAGES]
    blobs = np.ascontiguousarray(
        (images[..., ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)).transpose(0, 3, 1, 2)
    )
    reference = job.read_reference(case)[:IMAGES]
    found = np.stack([_run(engine, driver, blob, reference.shape[1:]) for blob in blobs])
    return compare(case, found, reference)


def build_from_caffe(job: Job, trt: Any, logger: Any) -> Any:
    """Build the engine of `caffe.prototxt` and `caffe.caffemodel`, in float32 without TF32."""
    output = json.loads((job.folder / "caffe.json").read_text())["output"]
    builder = trt.Builder(logger)
    network = builder.create_network(0)  # implicit batch, as the parser requires
    parser = trt.CaffeParser()
    files = {"deploy": str(job.folder / "caffe.prototxt"), "model": str(job.folder / "caffe.caffemodel")}
    tensors = parser.parse(**files, network=network, dtype=trt.float32)
    if tensors is None:
        raise BackendError("NVIDIA's Caffe parser rejects the net; see TensorRT's log")
    network.mark_output(tensors.find(output))
    builder.max_batch_size = 1
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
    config.set_tactic_sources(sum(1 << int(source) for source in sources))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError("TensorRT cannot build the Caffe parser's network; see its log")
    runtime = trt.Runtime(logger)
    return runtime.deserialize_cuda_engine(plan)


def _run(engine: Any, driver: CudaDriver, blob: Array, shape: tuple[int, ...]) -> Array:
    """Run one image, 3 x H x W float32 BGR minus the mean; return fc8, L x h x w."""
    stream = driver.create_stream()
    context = engine.create_execution_context()
    given, taken = driver.allocate_pinned(blob.nbytes), driver.allocate_pinned(int(np.prod(shape)) * 4)
    addresses = [driver.allocate(given.nbytes), driver.allocate(taken.nbytes)]
    try:
        given.view(np.float32)[:] = blob.reshape(-1)
        driver.copy_to_device(addresses[0], given, stream)
        if not context.execute_async(batch_size=1, bindings=addresses, stream_handle=stream):
            raise BackendError("TensorRT's enqueue failed; see its log")
        driver.copy_to_host(taken, addresses[1], stream)
        driver.synchronize(stream)
        scores: Array = taken.view(np.float32).reshape(shape).copy()
        return scores
    finally:
        driver.synchronize(stream)
        for address in addresses:
            driver.free(address)
        for memory in (given, taken):
            driver.free_pinned(memory)
        driver.destroy_stream(stream)
