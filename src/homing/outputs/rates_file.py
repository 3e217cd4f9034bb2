"""`rates.parquet`: a rate for every source sample, by id."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from homing.outputs.artefact import write_whole
from homing.pools.pool import Pool

if TYPE_CHECKING:
    from torch import Tensor

ROW_GROUP = 65_536
"""Rows in a group: readers that take one after the other need no more memory for a larger pool."""
DESCRIPTORS = ("target_likeness", "label_consistency", "target_alignment")


def write_rates(
    path: Path,
    source: Pool,
    rates: Tensor,
    *,
    descriptors: Mapping[str, Tensor],
    visits: Tensor,
    groups: Sequence[str] = (),
    suggested: Sequence[str | None] | None = None,
    dropped: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write one row for each source sample.

    Args:
        path: Of the file.
        source: The pool.
        rates: float32 [N].
        descriptors: Name → float32 [N]; those that this run does not know are filled with NaN.
        visits: int [N], gradient evaluations spent on each sample.
        groups: Columns of the pool to take along.
        suggested: A class that fits better than the label, or None; [N].
        dropped: (id, source, label) of samples whose image could not be read; they get rate 0.
    """
    count, extra = len(source), len(dropped)
    missing = np.full(count, np.nan, np.float32)
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array([*source.ids, *(row[0] for row in dropped)]),
        "source": pa.array([*source.sources, *(row[1] for row in dropped)]).dictionary_encode(),
        "label": pa.array([*source.labels, *(row[2] for row in dropped)]).dictionary_encode(),
        "rate": pa.array(np.concatenate([rates.float().numpy(), np.zeros(extra, np.float32)])),
    }
    for name in DESCRIPTORS:
        values = descriptors[name].float().numpy() if name in descriptors else missing
        columns[name] = pa.array(np.concatenate([values, np.full(extra, np.nan, np.float32)]))
    columns["visits"] = pa.array(np.concatenate([visits.numpy().astype(np.int32), np.zeros(extra, np.int32)]))
    if suggested is not None:
        columns["suggested_label"] = pa.array([*suggested, *([None] * extra)], pa.string())
    for name in groups:
        if name not in columns:
            columns[name] = pa.array([*source.columns[name], *([None] * extra)], pa.string()).dictionary_encode()
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd", row_group_size=ROW_GROUP)
    write_whole(path, buffer.getvalue())
