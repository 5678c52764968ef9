"""Measuring checkpoints, pictures and baselines against the known truth."""
