"""The parts of `bench_gpu`: cases and targets, preparation, one worker for each library, the report."""
