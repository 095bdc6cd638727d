"""Image editing benchmarks: samples in, edits and scores out. Knows no model and no process."""
