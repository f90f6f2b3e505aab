"""TensorRT for RTX: engines for RTX GPUs, built on a CPU without a driver (experimental).

`library` finds NVIDIA's SDK or the pinned wheel, `binding` calls the wheel's library through ctypes, `child` makes one
build in a process of its own, `builder` starts that process, and `context` wraps a plan as the ONNX model that ONNX
Runtime's provider loads.
"""
