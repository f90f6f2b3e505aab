"""The benchmark without a GPU: engines run ONNX Runtime on the CPU behind the fake driver.

Scores are real and are compared as on a GPU; times come from a simulated clock and mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atrous.runtime.backends.onnxruntime import OnnxRuntimeBackend
from atrous.runtime.backends.protocol import Array, TensorSpec
from atrous.runtime.backends.tensorrt.driver import CudaDriver

from .cases import Case
from .fake_driver import FakeDriver
from .fake_engine import FakeEngine, Shape
from .tensorrt_worker import HostEngine

_COMPUTE_MS = {"fp32": 8.0, "tf32": 4.0, "fp16": 2.0, "int8": 1.0}


class FakeHost:
    """A `Host` for tests.

    Attributes:
        fault: fault of the engines it builds; see `FakeEngine`.
    """

    def __init__(self, fault: str = ""):
        """Build engines with an injected fault, or without one if ""."""
        self.device = FakeDriver()
        self.driver: CudaDriver = self.device
        self.fault = fault

    def build(self, model: bytes, facts: Mapping[str, Any], case: Case, input_name: str) -> HostEngine:
        """See `Host`."""
        network = OnnxRuntimeBackend(model, threads=1)
        output = network.outputs[0]
        shapes: dict[Shape, Shape] = {}

        def infer(inputs: Mapping[str, Shape]) -> dict[str, Shape]:
            shape = inputs[input_name]
            if shape not in shapes:
                import numpy as np

                shapes[shape] = network.run({input_name: np.zeros(shape, np.uint8)})[output.name].shape
            return {output.name: shapes[shape]}

        def compute(feeds: Mapping[str, Array]) -> dict[str, Array]:
            return network.run({name: array.copy() for name, array in feeds.items()})

        shape = (case.batch, case.height, case.width, 3)
        engine = FakeEngine(
            self.device,
            inputs=[TensorSpec(input_name, "uint8", shape)],
            outputs=[TensorSpec(output.name, output.dtype, output.shape)],
            function=compute,
            shape_rule=infer,
            profiles=[{input_name: (shape, shape, shape)}],
            compute_ms=_COMPUTE_MS[case.precision] * case.batch,
            fault=self.fault,
        )
        return HostEngine(engine, {"build_s": 0.0, "precision_reached": 1.0, "tensorrt": "fake"})
