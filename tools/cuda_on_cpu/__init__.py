"""Runs the dense CRF's GPU kernels on the CPU: the same source compiled by g++, threads and blocks in loops."""
