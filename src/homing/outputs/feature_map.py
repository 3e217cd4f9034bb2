"""`map.parquet`: a sample of source and target images on a plane, by the features that the rates were learned from."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from homing.outputs.artefact import write_whole

if TYPE_CHECKING:
    from homing.pools.pool import Pool

MAX_SOURCE, MAX_TARGET = 6_000, 400
_UMAP_WIDTH = 50  # principal components that UMAP starts from


class FeatureBlocks(Protocol):
    """Features of N rows that need not be in memory."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        ...

    def rows(self, rows: Tensor) -> Tensor:
        """Of some rows, int64 [m]; float32 [m, D] on the CPU."""
        ...


Features: TypeAlias = Tensor | FeatureBlocks


def write_map(path: Path, source: Pool, target: Pool, features: Features, *, seed: int) -> None:
    """Lay source and target images out on a plane and write where they lie.

    By principal components, and by UMAP too where it is installed (`homing[umap]`).

    Args:
        path: Of the file: `sample_id, role, pca_x, pca_y` and with UMAP `umap_x, umap_y`.
        source: The pool; at most 6,000 of its images are taken, drawn by the seed.
        target: At most 400 of its images are taken.
        features: [N + n, D], source rows first; only those of the sample are asked for.
        seed: Of the sample and of UMAP.
    """
    generator = np.random.default_rng(seed)
    ours = _sample(len(source), MAX_SOURCE, generator)
    theirs = _sample(len(target), MAX_TARGET, generator)
    rows = torch.from_numpy(np.concatenate([ours, len(source) + theirs]))
    chosen = features[rows] if isinstance(features, Tensor) else features.rows(rows)
    components = principal_components(chosen, len(ours), _UMAP_WIDTH)
    columns = {
        "sample_id": [*(source.ids[int(row)] for row in ours), *(target.ids[int(row)] for row in theirs)],
        "role": pa.array(["source"] * len(ours) + ["target"] * len(theirs)).dictionary_encode(),
        "pca_x": components[:, 0].numpy(),
        "pca_y": components[:, 1].numpy(),
    }
    if find_spec("umap") is not None:
        import umap

        places = umap.UMAP(random_state=seed, n_jobs=1).fit_transform(components.numpy())
        columns |= {"umap_x": places[:, 0], "umap_y": places[:, 1]}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    write_whole(path, buffer.getvalue())


def principal_components(features: Tensor, num_source: int, width: int) -> Tensor:
    """The leading principal components, the two pools weighing alike; otherwise a few dozen target images are lost.

    Args:
        features: float32 [N + n, D], source rows first.
        num_source: N.
        width: Components wanted; at least two come, of zeros where the features have fewer columns.

    Returns:
        float32 [N + n, max(2, min(width, D))], the leading one first; the target's mean lies on the positive side
        of each.
    """
    weights = torch.empty(len(features), dtype=torch.float64)
    weights[:num_source] = 0.5 / num_source
    weights[num_source:] = 0.5 / (len(features) - num_source)
    centred = features.double() - weights @ features.double()
    # of the rows' triangle, which has their directions and is small: the eigenvalues of D x D sums need not converge
    # where columns are all alike
    triangle = torch.linalg.qr(weights.sqrt()[:, None] * centred, mode="r").R
    directions = torch.linalg.svd(triangle, full_matrices=False)[2].T[:, :width]
    places = centred @ directions
    signs = places[num_source:].mean(0).sign()
    places = (places * torch.where(signs == 0, 1.0, signs)).float()
    return torch.nn.functional.pad(places, (0, max(0, 2 - places.shape[1])))


def _sample(count: int, at_most: int, generator: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if count <= at_most:
        return np.arange(count)
    return np.sort(generator.choice(count, at_most, replace=False))
