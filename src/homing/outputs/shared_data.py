"""Several targets of one source: which of them are served by the same samples."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from homing.measures import headline_of
from homing.outputs.artefact import write_json, write_whole
from homing.outputs.rates_reader import RatesFile

_PAIR = ("a", "b", "rank_correlation", "common_mass")


def write_shared(folder: Path, each: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Write `results.json` and `targets.csv` of a run over several targets, and return what is in the first.

    Args:
        folder: Of the run; each target has a folder of its name in it.
        each: Name → `results.json` of its run.
    """
    rates = {name: RatesFile(folder / name / "rates.parquet").rates() for name in each}
    pairs = [_pair(a, b, rates[a], rates[b]) for a, b in itertools.combinations(each, 2)]
    metric = headline_of(next(iter(each.values()), {})).key
    rows = {name: _row(one, metric) for name, one in each.items()}
    results = {"metric": metric, "targets": rows, "pairs": pairs}
    table = io.StringIO()
    writer = csv.DictWriter(table, _PAIR)
    writer.writeheader()
    writer.writerows(pairs)
    write_whole(folder / "targets.csv", table.getvalue().encode())
    write_json(folder / "results.json", results)
    return results


def _row(results: dict[str, Any], metric: str) -> dict[str, Any]:
    score = results["target"] or {}
    return {
        "num_target": results["data"]["target"]["num_samples"],
        "effective_sample_size": results["rates"]["effective_sample_size"],
        "phi": results["rates"]["phi"],
        "accuracy": score.get("accuracy"),
        metric: score.get(metric),
        "scanned_source_images": results["cost"]["scanned_source_images"],
        "warnings": results["warnings"],
    }


def _pair(a: str, b: str, ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Spearman's correlation (None where all rates of one are alike), and the mass in common.

    The mass in common is the sum over samples of the smaller of both shares: 1 where both train on the same data in
    the same proportions, 0 where no sample serves both.
    """
    from scipy.stats import rankdata

    correlation = None
    if np.ptp(ours) > 0 and np.ptp(theirs) > 0:
        correlation = float(np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1])
    total, other = float(ours.sum(dtype=np.float64)), float(theirs.sum(dtype=np.float64))
    common = float(np.minimum(ours / (total or 1.0), theirs / (other or 1.0)).sum(dtype=np.float64))
    return {"a": a, "b": b, "rank_correlation": correlation, "common_mass": common}
