"""The project's own programs: benchmarks, conformance, fuzzers, checks, generators. Not part of the wheel."""
