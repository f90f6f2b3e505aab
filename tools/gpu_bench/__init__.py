"""The parts of `bench_gpu`: cases and targets, what is prepared, one worker a library, the report."""
