"""A `Net` to torch, Python source, ONNX and a bundle."""
