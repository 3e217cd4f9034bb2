"""The one error of the alignment engine."""

from __future__ import annotations

from homing.errors import HomingError


class AlignmentError(HomingError):
    """The alignments of this model, direction or step cannot be computed exactly, and why."""
