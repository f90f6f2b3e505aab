"""Stands in for NVIDIA's module tensorrt_rtx in a child process: a plan is JSON of the calls that reached the builder.

It is copied to a file of that name on the path. The environment variable ATROUS_TEST_RTX selects a fault: "crash" kills
the process in the build, "crash late" when the builder is freed, "refuse" makes the parser refuse, "fail" the builder,
"mute" leaves the list of layers out of the log.
"""

import json
import os
import signal
from enum import IntEnum

__version__ = "1.7.1.116"
FAULT = os.environ.get("ATROUS_TEST_RTX", "")
TENSOR = "{ Name: t, Dimensions: [1,3], Strides: [3,1], StrideOrder: [1,0], Datatype: %s, Format: (Linear) Row major }"
LAYER = (
    "Name: conv_myl0_1, LayerType: correlation, Inputs: [ %s], Constants: [], Outputs: [ %s], TacticName: t, "
    "StreamId: 0, Metadata: [ONNX Layer: scores]"
)

BuilderFlag = IntEnum("BuilderFlag", {"TF32": 6})
ProfilingVerbosity = IntEnum("ProfilingVerbosity", {"DETAILED": 2})
MemoryPoolType = IntEnum("MemoryPoolType", {"WORKSPACE": 0})
ComputeCapability = IntEnum("ComputeCapability", {f"SM{number}": number for number in (75, 80, 86, 89, 120, 121)})
Severity = IntEnum("Severity", {"ERROR": 1, "WARNING": 2, "VERBOSE": 4})


class ILogger:
    pass


class Config:
    def __init__(self):
        self.calls = {"targets": []}

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name != "calls":
            self.calls[name] = value

    def set_flag(self, flag):
        self.calls[flag.name] = True

    def clear_flag(self, flag):
        self.calls[flag.name] = False

    def set_memory_pool_limit(self, pool, size):
        self.calls[pool.name] = size

    def set_compute_capability(self, capability, index):
        self.calls["targets"].append(capability.name)
        return len(self.calls["targets"]) == index + 1 <= self.num_compute_capabilities

    def add_optimization_profile(self, profile):
        self.calls["profile"] = profile.shapes
        return 0


class Profile:
    def set_shape(self, name, *shapes):
        self.shapes = {name: shapes}


class Network:
    num_layers = 1


class Builder:
    def __init__(self, logger):
        self.logger = logger

    def __del__(self):
        if FAULT == "crash late":
            os.kill(os.getpid(), signal.SIGSEGV)

    def create_network(self, flags):
        return Network()

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        for _ in range(2):
            self.logger.log(Severity.WARNING, "some warning")
        if FAULT == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if FAULT == "fail":
            self.logger.log(Severity.ERROR, "no kernel")
            return None
        kind = os.environ.get("ATROUS_TEST_RTX_TYPE", "Float")
        if FAULT != "mute":
            self.logger.log(
                Severity.VERBOSE, "Layers:\n" + LAYER % (TENSOR % kind, TENSOR % "Float") + "\n\nBindings:\n"
            )
        return json.dumps(config.calls).encode()


class Error:
    def node(self):
        return 3

    def node_name(self):
        return "conv1"

    def node_operator(self):
        return "Conv"

    def desc(self):
        return "not supported"


class OnnxParser:
    num_errors = 1

    def __init__(self, network, logger):
        pass

    def parse(self, model):
        assert model
        return FAULT != "refuse"

    def get_error(self, index):
        return Error()
