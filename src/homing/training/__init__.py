"""One loop for every method and baseline: its plan, its step, its checkpoint."""
