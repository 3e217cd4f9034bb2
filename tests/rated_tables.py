"""Tables whose rows bring their features along, and the command that rates them."""

from __future__ import annotations

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gaussian_domains import hidden_matches
from safetensors.numpy import save_file
from typer.testing import CliRunner

from homing.cli.app import app

EVIDENCE = hidden_matches(seed=0, wrong=0.2)
NAMES = np.array(["ant", "bee", "cat", "dog"])
POOLS = {
    "pool": (EVIDENCE.source_features.numpy(), NAMES[EVIDENCE.source_labels]),
    "mine": (EVIDENCE.target_features.numpy(), NAMES[EVIDENCE.target_labels]),
}


def lists_of(features, kind):
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(pa.array(features.astype(np.float16).ravel()), features.shape[1])
    halves = features.astype(np.float16).astype(np.float32)
    return pa.array(halves.tolist(), pa.list_(pa.float32()))


def write_pools(folder, kind="fixed", **columns):
    """`pool.parquet` and `mine.parquet`, and their features in a column of that kind, or beside them."""
    folder.mkdir(exist_ok=True)
    for name, (features, labels) in POOLS.items():
        table = pa.table({"id": [f"{name}-{row}" for row in range(len(labels))], "label": labels})
        for column, value in columns.items():
            table = table.append_column(column, pa.array([value(row) for row in range(len(labels))]))
        if kind == "npy":
            np.save(folder / f"{name}.npy", features.astype(np.float16))
        elif kind == "safetensors":
            save_file({"first": np.ones(3), "embedding": features.astype(np.float16)}, folder / f"{name}.safetensors")
        else:
            table = table.append_column("embedding", lists_of(features, kind))
        if kind == "saved":
            datasets.Dataset(table).save_to_disk(folder / name)
        else:
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=150)
    return folder


def rate(folder, *more, kind="fixed", output="out"):
    ending = "" if kind == "saved" else ".parquet"
    words = ["rate", "--source", f"{folder}/pool{ending}", "--target", f"{folder}/mine{ending}"]
    if kind in ("npy", "safetensors"):
        words += ["--features", f"{folder}/pool.{kind}", "--target-features", f"{folder}/mine.{kind}"]
    else:
        words += ["--features", "embedding"]
    return CliRunner().invoke(app, [*words, "--output", f"{folder}/{output}", "--quiet", *map(str, more)])
