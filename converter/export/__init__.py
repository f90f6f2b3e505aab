"""`Net` -> torch, Python source, ONNX and a bundle."""
