"""Large images: an estimate of their memory, and labeling in overlapping tiles within a limit."""
