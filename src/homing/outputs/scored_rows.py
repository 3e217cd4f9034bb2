"""Rows that were scored, as the columns of a rates file."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from homing.pools.pool import Pool
from homing.rates.learned.scorer import Scores


def scored_columns(pool: Pool, rows: slice, scores: Scores, own: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """A block of a rates file; a class is suggested where it is not the label's own."""
    import pyarrow as pa

    best = own if scores.best is None else scores.best
    return {
        "sample_id": pool.ids[rows].to_arrow(),
        "source": pool.sources[rows].to_arrow(),
        "label": pool.labels[rows].to_arrow(),
        "rate": scores.rates.numpy(),
        "target_likeness": scores.target_likeness.numpy(),
        "label_consistency": scores.label_consistency.numpy(),
        "suggested_label": pa.array(classes, pa.string()).take(pa.array(best.numpy(), mask=(best == own).numpy())),
    }
