"""Exact alignments of every sample with a direction, out of the training's own backward pass."""

from homing.rates.alignment.error import AlignmentError
from homing.rates.alignment.observe import Alignment, Coverage

__all__ = ["Alignment", "AlignmentError", "Coverage"]
