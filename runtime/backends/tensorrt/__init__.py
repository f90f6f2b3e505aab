"""TensorRT 8.5 to 11: building engines, an engine store with signatures, and the backend that runs them.

Modules here need NumPy and the standard library; TensorRT itself is imported by `compat.load_tensorrt` only.
"""
