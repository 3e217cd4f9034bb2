"""What a run says of unlabelled images: `unlabelled.parquet`, a row for each, and `labels_wanted.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from homing.outputs.artefact import open_whole, write_whole
from homing.outputs.safe_names import csv_line, safe_cell
from homing.pools.pool import Pool
from homing.rates.learned.guesses import LEAST_RIGHT

if TYPE_CHECKING:
    from torch import Tensor

    from homing.rates.learned.guesses import Guesses
    from homing.rates.learned.plan import RatePlan

TABLE, WANTED = "unlabelled.parquet", "labels_wanted.csv"
_COLUMNS = ("sample_id", "guess", "probability", "match", "score")
_BINS = 20
_ROW_GROUP = 65_536
_NOTHING = 1.0
"""A mass of all guesses below this, in source samples, cannot matter."""


def write_unlabelled(folder: Path, pool: Pool, plan: RatePlan, classes: Sequence[str], visits: Tensor) -> None:
    """Write both files of a run.

    Args:
        folder: Of the run.
        pool: The U unlabelled images.
        plan: With its guesses, as they were in the end.
        classes: Names that guesses count in.
        visits: int [U], gradient evaluations spent on each image.
    """
    guesses = plan.guesses
    assert guesses is not None
    category = pa.dictionary(pa.int32(), pa.string())
    names = pa.array(classes, pa.string())
    numbers = {"probability": guesses.right, "match": guesses.match, "rate": guesses.rates}
    guessed = pa.DictionaryArray.from_arrays(pa.array(guesses.labels.numpy(), pa.int32()), names)
    table = pa.table(
        {
            "sample_id": pool.ids.to_arrow(),
            "source": pool.sources.to_arrow().cast(category),
            "guess": guessed,
            **{name: pa.array(values.float().numpy()) for name, values in numbers.items()},
            "visits": pa.array(visits.numpy(), pa.int32()),
        }
    )
    with open_whole(folder / TABLE) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)
    lines = [csv_line(_COLUMNS)]
    for row in _wanted(pool, plan, classes):
        texts = {name: safe_cell(row[name]) for name in ("sample_id", "guess")}
        lines.append(csv_line([texts.get(name, row[name]) for name in _COLUMNS]))
    write_whole(folder / WANTED, "".join(lines).encode("utf-8", errors="surrogatepass"))


def describe_unlabelled(
    pool: Pool, plan: RatePlan, classes: Sequence[str], repeated: Mapping[str, int], visits: Tensor
) -> dict[str, Any]:
    """What `results.json` says of them: sums, a histogram of how probably guesses are right, what to label next.

    `right_share` is that of images of the target's domain, as far as they are.

    Args:
        pool: As for `write_unlabelled`.
        plan: As there.
        classes: As there.
        repeated: Role → images that were left out because the same pictures are there.
        visits: As for `write_unlabelled`.
    """
    guesses = plan.guesses
    assert guesses is not None
    counts = torch.histc(guesses.right, _BINS, 0, 1).long().tolist()
    match, right = _shares(guesses)
    return {
        "num_samples": len(pool),
        "left_out": dict(repeated),
        "match_share": match,
        "right_share": right,
        "num_counting": int((guesses.rates > 0).sum()),
        "mass": float(guesses.rates.sum(dtype=torch.float64)),
        "visits": int(visits.sum()),
        "confidence": counts,
        "wanted": list(_wanted(pool, plan, classes)),
    }


def guess_warnings(plan: RatePlan) -> list[str]:
    """Where the unlabelled images cannot help."""
    guesses = plan.guesses
    if guesses is None or float(guesses.rates.sum()) >= _NOTHING:
        return []
    match, right = _shares(guesses)
    return [
        f"Unlabelled images ({len(guesses.rates):,}) count for less than a single source sample: {100 * match:.0f} % of"
        f" them look like the target's domain, and {100 * right:.0f} % of their guesses are right, as far as labelled"
        f" images tell (below {100 * LEAST_RIGHT:.0f} % none counts). {WANTED} says which to label."
    ]


def _shares(guesses: Guesses) -> tuple[float, float]:
    """How many are of the target's domain, and of how many of those the guess is right; both 0..1."""
    matching = float(guesses.match.sum())
    right = float((guesses.right * guesses.match).sum()) / matching if matching else float(guesses.right.mean())
    return float(guesses.match.mean()), right


def _wanted(pool: Pool, plan: RatePlan, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    guesses = plan.guesses
    assert guesses is not None
    for row, score in plan.wanted:
        yield {
            "sample_id": str(pool.ids[row]),
            "guess": classes[int(guesses.labels[row])],
            "probability": round(float(guesses.right[row]), 4),
            "match": round(float(guesses.match[row]), 4),
            "score": round(score, 4),
        }
