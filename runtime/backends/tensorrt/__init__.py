"""TensorRT, 8.5 to 11: plans of a build, engines that can be trusted, and the backend that runs them.

Modules here need NumPy and the standard library; TensorRT itself is imported by `compat.load_tensorrt` alone.
"""
