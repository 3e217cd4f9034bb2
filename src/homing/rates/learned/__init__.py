"""Rates that are learned before training: evidence, likeness, consistency, judge, rate model."""
