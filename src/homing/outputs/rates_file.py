"""`rates.parquet` of a pool: a rate for every sample, by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from homing.outputs.artefact import open_whole
from homing.pools.pool import Pool
from homing.rates.rates_writer import ROW_GROUP, RatesWriter

if TYPE_CHECKING:
    from torch import Tensor


def write_rates(
    path: Path,
    source: Pool,
    rates: Tensor,
    *,
    descriptors: Mapping[str, Tensor],
    visits: Tensor,
    groups: Sequence[str] = (),
    suggested: Tensor | None = None,
    classes: Sequence[str] = (),
    dropped: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write one row for each source sample; beyond the arguments, memory holds a row group.

    Args:
        path: Of the file.
        source: The pool.
        rates: float32 [N].
        descriptors: Name → float32 [N]; those that this run does not know are filled with NaN.
        visits: int [N], gradient evaluations spent on each sample.
        groups: Columns of the pool to take along.
        suggested: int64 [N], position in `classes` of a class that fits better than the label, or -1.
        classes: Names that `suggested` counts in.
        dropped: (id, source, label) of samples whose image could not be read; they get rate 0.
    """
    numbers = {"rate": rates, "visits": visits, **descriptors}
    names = pa.array(classes, pa.string())
    with open_whole(path) as file, closing(RatesWriter(file, groups, has_suggested=suggested is not None)) as writer:
        for start in range(0, len(source), ROW_GROUP):
            rows = slice(start, min(len(source), start + ROW_GROUP))
            columns: dict[str, Any] = {name: values[rows].cpu().numpy() for name, values in numbers.items()}
            texts = {"sample_id": source.ids, "source": source.sources, "label": source.labels}
            texts |= {name: source.columns[name] for name in writer.groups}
            columns |= {name: _slice_of(values, rows) for name, values in texts.items()}
            if suggested is not None:
                codes = suggested[rows].cpu().numpy()
                columns["suggested_label"] = names.take(pa.array(codes, mask=codes < 0))
            writer.add(columns)
        if dropped:
            ids, sources, labels = zip(*dropped, strict=True)
            nothing = np.zeros(len(ids), np.float32)
            writer.add({"sample_id": ids, "source": sources, "label": labels, "rate": nothing})


def _slice_of(texts: Any, rows: slice) -> Any:
    """Some rows of a sequence of texts, as Arrow where it is held as such."""
    part = texts[rows]
    return part.to_arrow() if hasattr(part, "to_arrow") else part
