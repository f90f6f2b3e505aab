"""NVIDIA's own parser, builder and Python bindings, without a GPU: `make rtx-check`, `python -m tools.nvidia_check`."""
