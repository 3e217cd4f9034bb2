"""Metrics with intervals, baselines, and the comparison of methods at one budget."""
