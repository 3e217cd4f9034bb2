"""A pool: labelled images with stable ids, before anything is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from homing.errors import DataError


class ImageStore(Protocol):
    """Encoded images by row."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> bytes:
        """The encoded bytes (JPEG, PNG, ...) of one row; raises OSError where they cannot be had."""
        ...

    def size(self, row: int) -> int:
        """How many bytes `read` gives; raises OSError where they cannot be had."""
        ...


@dataclass(frozen=True)
class Pool:
    """Labelled images with stable ids.

    Attributes:
        name: What the pool is called in reports.
        ids: One unique id a row; never the position.
        labels: Class name of each row.
        store: Where the encoded images are read from.
        sources: Name of the pool that each row came from (several where pools were joined).
        columns: Further columns by name, one text a row (groups, truth).
        rows: Row of `store` for each row of the pool.
    """

    name: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    store: ImageStore
    sources: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that occur, sorted."""
        return tuple(sorted(set(self.labels)))

    def read(self, row: int) -> bytes:
        """Encoded image of a row of this pool."""
        return self.store.read(int(self.rows[row]))

    def size(self, row: int) -> int:
        """Bytes of the encoded image of a row of this pool."""
        return self.store.size(int(self.rows[row]))

    def select(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Pool:
        """The pool with only these rows, in this order."""
        keep = [int(row) for row in rows]
        return Pool(
            name=self.name,
            ids=tuple(self.ids[row] for row in keep),
            labels=tuple(self.labels[row] for row in keep),
            store=self.store,
            sources=tuple(self.sources[row] for row in keep),
            columns={key: tuple(values[row] for row in keep) for key, values in self.columns.items()},
            rows=self.rows[keep],
        )

    def label_indices(self, classes: Sequence[str], role: str = "source") -> npt.NDArray[np.int64]:
        """Position of each row's class in `classes`, which are those of a role; int64 [len(self)].

        Raises:
            DataError: A class of this pool is not among `classes`.
        """
        index = {name: position for position, name in enumerate(classes)}
        if missing := [name for name in self.classes if name not in index]:
            raise DataError(
                f"class {', '.join(map(repr, missing))} is not among the {role}'s classes"
                f" ({', '.join(classes)}); classes are matched by name: rename the folder or label,"
                f" add such images to the {role}, or leave the class out"
            )
        return np.array([index[name] for name in self.labels], dtype=np.int64)

    def flags(self, column: str) -> npt.NDArray[np.bool_]:
        """A column of 0 and 1 (or true and false) as booleans; bool [len(self)].

        Raises:
            DataError: The column is missing or holds something else.
        """
        values = {"0": False, "false": False, "0.0": False, "1": True, "true": True, "1.0": True}
        if column not in self.columns:
            raise DataError(f"{self.name}: there is no column {column!r}; columns: {', '.join(self.columns) or 'none'}")
        texts = [text.strip().lower() for text in self.columns[column]]
        odd = next((row for row, text in enumerate(texts) if text not in values), None)
        if odd is not None:
            raise DataError(f"{self.name}: {column} of {self.ids[odd]} is {texts[odd]!r}, allowed: 0 or 1")
        return np.array([values[text] for text in texts], dtype=np.bool_)

    def digest(self) -> str:
        """sha256 over the sorted (id, label) pairs: changes when rows come, go or are relabelled."""
        digest = hashlib.sha256()
        for line in sorted(f"{len(i)}:{i}{label}\n" for i, label in zip(self.ids, self.labels, strict=True)):
            digest.update(line.encode())
        return digest.hexdigest()


class JoinedImages:
    """Several stores, one behind the other."""

    def __init__(self, stores: Sequence[ImageStore]) -> None:
        self.stores = tuple(stores)
        self.starts = np.cumsum([0, *(len(store) for store in stores)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, row: int) -> bytes:
        """Encoded image of a row, counted over all stores."""
        store, inside = self._place(row)
        return store.read(inside)

    def size(self, row: int) -> int:
        """Bytes of the encoded image of a row, counted over all stores."""
        store, inside = self._place(row)
        return store.size(inside)

    def _place(self, row: int) -> tuple[ImageStore, int]:
        position = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.stores[position], int(row - self.starts[position])


def join(pools: Sequence[Pool]) -> Pool:
    """One pool out of several; with more than one, ids get the pool's name in front so that they stay unique.

    Raises:
        DataError: Two pools have the same name.
    """
    if len(pools) == 1:
        return pools[0]
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise DataError(f"source pools need different names, found {', '.join(names)}; set data.source.0.name")
    starts = np.cumsum([0, *(len(pool.store) for pool in pools)])
    columns = sorted({key for pool in pools for key in pool.columns})
    return Pool(
        name="+".join(names),
        ids=tuple(f"{pool.name}/{sample_id}" for pool in pools for sample_id in pool.ids),
        labels=tuple(label for pool in pools for label in pool.labels),
        store=JoinedImages([pool.store for pool in pools]),
        sources=tuple(pool.name for pool in pools for _ in pool.ids),
        columns={
            key: tuple(text for pool in pools for text in pool.columns.get(key, ("",) * len(pool))) for key in columns
        },
        rows=np.concatenate([pool.rows + start for pool, start in zip(pools, starts, strict=False)]),
    )
