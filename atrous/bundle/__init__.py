"""The bundle: the contract between the converter, which writes it, and the runtime, which reads it."""
