"""A real Triton server without its container, for tests of exported repositories."""
