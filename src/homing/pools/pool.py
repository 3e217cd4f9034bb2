"""A pool: labelled images with stable ids, before anything is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from homing.errors import DataError
from homing.pools.class_names import near_misses, quoted, shown, spelled_alike
from homing.pools.columns import Columns, joined_columns
from homing.pools.rows import PoolRows, StoreRows
from homing.pools.texts import Texts, digest_of, digest_of_pairs

STATE_BYTES = 16
_FLAGS = {"0": False, "false": False, "0.0": False, "1": True, "true": True, "1.0": True}


class ImageStore(Protocol):
    """Encoded images by row."""

    def __len__(self) -> int: ...

    def read(self, row: int) -> bytes:
        """The encoded bytes (JPEG, PNG, ...) of one row; raises OSError where they cannot be had."""
        ...

    def size(self, row: int) -> int:
        """How many bytes `read` gives; raises OSError where they cannot be had."""
        ...

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """Of each row 16 bytes that change whenever its image may have changed, without reading it.

        uint8 [len(rows), 16]; zeros where that is unknown.
        """
        ...

    def known_digest(self, row: int) -> bytes | None:
        """sha256 of what `read` gave when the pool was read; None where it was not read then."""
        ...


@dataclass(frozen=True)
class ReadAs:
    """What a path of a recipe was read as: for `validate`, and for warnings.

    Attributes:
        name: Of the pool.
        kind: image folder, image folder with metadata.csv, parquet files, saved dataset.
        columns: What for → the column (or folder) that it was taken from.
        skipped: Suffix → files that were not read, because no image has it.
        warnings: What may have been meant otherwise, one sentence each.
        version: Of a source that has versions, the one that is read; part of the pool's identity.
        selection: Which rows of it were chosen, and how many that are; empty where all are.
        renamed: Old name → new name of classes, as the recipe says.
    """

    name: str
    kind: str
    columns: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    version: str = ""
    selection: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """Labelled images with stable ids.

    Attributes:
        name: What the pool is called in reports.
        ids: One unique id a row; never the position (but of rows that cannot be read in a table without ids).
        labels: Class name of each row.
        store: Where the encoded images are read from.
        sources: Name of the pool that each row came from (several where pools were joined).
        columns: Further columns by name, one text a row (groups, truth); read when first asked for.
        rows: Row of `store` for each row of the pool.
        read_as: What its paths were read as; one for each pool that was joined.
    """

    name: str
    ids: Texts
    labels: Texts
    store: ImageStore
    sources: Texts
    columns: Columns
    rows: StoreRows
    read_as: tuple[ReadAs, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that occur, sorted."""
        return self.labels.unique()

    def read(self, row: int) -> bytes:
        """Encoded image of a row of this pool."""
        return self.store.read(int(self.rows[row]))

    def size(self, row: int) -> int:
        """Bytes of the encoded image of a row of this pool."""
        return self.store.size(int(self.rows[row]))

    def known_digest(self, row: int) -> bytes | None:
        """sha256 of the encoded image of a row of this pool, where it was read for the ids; else None."""
        return self.store.known_digest(int(self.rows[row]))

    def select(self, rows: Sequence[int] | PoolRows) -> Pool:
        """The pool with only these rows, in this order."""
        keep = np.asarray(rows, dtype=np.int64)
        return Pool(
            name=self.name,
            ids=self.ids.take(keep),
            labels=self.labels.take(keep),
            store=self.store,
            sources=self.sources.take(keep),
            columns=self.columns.take(keep),
            rows=self.rows[keep],
            read_as=self.read_as,
        )

    def label_indices(self, classes: Sequence[str], role: str = "the source") -> npt.NDArray[np.int64]:
        """Position of each row's class in `classes`, which are those of a role; int64 [len(self)].

        Raises:
            DataError: A class of this pool is not among `classes`.
        """
        index = {name: position for position, name in enumerate(classes)}
        codes, names = self.labels.encode()
        if missing := [name for name in names if name not in index]:
            twins = spelled_alike(missing, classes)
            hint = "".join(f"; {shown(name)} is not quite {shown(other)}" for name, other in twins[:3])
            if slips := near_misses([name for name in missing if name not in dict(twins)], classes)[:3]:
                hint += f"; did you mean {', '.join(f'{other!r} for {name!r}' for name, other in slips)}?"
            raise DataError(
                f"class {quoted(missing)} is not among {role}'s classes"
                f" ({quoted(classes)}); classes are matched by name: rename the folder or label,"
                f" add such images there, or leave the class out{hint}"
            )
        return np.array([index[name] for name in names], dtype=np.int64)[codes]

    def flags(self, column: str) -> npt.NDArray[np.bool_]:
        """A column of 0 and 1 (or true and false) as booleans; bool [len(self)].

        Raises:
            DataError: The column is missing or holds something else.
        """
        if column not in self.columns:
            raise DataError(f"{self.name}: there is no column {column!r}; columns: {quoted(self.columns) or 'none'}")
        codes, texts = self.columns[column].encode()
        plain = [text.strip().lower() for text in texts]
        if odd := [code for code, text in enumerate(plain) if text not in _FLAGS]:
            row = int(np.flatnonzero(np.isin(codes, odd))[0])
            raise DataError(f"{self.name}: {column} of {self.ids[row]} is {plain[codes[row]]!r}, allowed: 0 or 1")
        return np.array([_FLAGS[text] for text in plain], dtype=np.bool_)[codes]

    def digest(self) -> str:
        """sha256 over the sorted (id, label) pairs: changes when rows come, go or are relabelled, not with their order.

        `identity` changes with their order too.
        """
        return digest_of_pairs(self.ids, self.labels)

    def identity(self) -> str:
        """sha256 over all ids, then all labels, as they stand, and versions: changes with any and their order."""
        versions = [one.version for one in self.read_as]
        return digest_of(self.ids, self.labels, *([Texts(versions)] if any(versions) else []))


class NoImages:
    """What stands for pictures where rows are something else.

    Args:
        num_rows: How many there are.
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def __len__(self) -> int:
        return self._num_rows

    def read(self, row: int) -> bytes:
        """Raises OSError: there is none."""
        raise OSError(f"row {row} is no picture")

    def size(self, row: int) -> int:
        """Raises OSError: there is none."""
        raise OSError(f"row {row} is no picture")

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """Zeros: there is none."""
        return np.zeros((len(rows), STATE_BYTES), np.uint8)

    def known_digest(self, row: int) -> bytes | None:
        """None: there is none."""
        return None


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

    def states(self, rows: StoreRows) -> npt.NDArray[np.uint8]:
        """States of some rows, counted over all stores; uint8 [len(rows), 16], zeros where unknown."""
        rows = np.asarray(rows, np.int64)
        places = np.searchsorted(self.starts, rows, side="right") - 1
        found = np.zeros((len(rows), STATE_BYTES), np.uint8)
        for number in np.unique(places).tolist():
            inside = places == number
            found[inside] = self.stores[number].states(rows[inside] - self.starts[number])
        return found

    def known_digest(self, row: int) -> bytes | None:
        """sha256 of a row's image, where it was read already."""
        store, inside = self._place(row)
        return store.known_digest(inside)

    def _place(self, row: int) -> tuple[ImageStore, int]:
        position = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.stores[position], int(row - self.starts[position])


def join(pools: Sequence[Pool]) -> Pool:
    """One pool out of several; with more than one, ids get the pool's name in front so that they stay unique.

    Raises:
        DataError: Two pools have the same name, or names by which two samples get the same id.
    """
    if len(pools) == 1:
        return pools[0]
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise DataError(f"source pools need different names, found {', '.join(names)}; set data.source.0.name")
    ids = Texts.concat([pool.ids.with_prefix(f"{pool.name}/") for pool in pools])
    if any(name.startswith(f"{other}/") for name in names for other in names):
        _check_unique(ids, names)
    starts = np.cumsum([0, *(len(pool.store) for pool in pools)])
    return Pool(
        name="+".join(names),
        ids=ids,
        labels=Texts.concat([pool.labels for pool in pools]),
        store=JoinedImages([pool.store for pool in pools]),
        sources=Texts.concat([Texts.constant(pool.name, len(pool)) for pool in pools]),
        columns=joined_columns([(pool.columns, len(pool)) for pool in pools]),
        rows=np.concatenate([pool.rows + start for pool, start in zip(pools, starts, strict=False)]),
        read_as=tuple(read_as for pool in pools for read_as in pool.read_as),
    )


def _check_unique(ids: Texts, names: Sequence[str]) -> None:
    if (double := ids.first_double()) is not None:
        raise DataError(
            f"the source pools {quoted(names)} come twice to the id {ids[double]!r} (name/id); set data.source.0.name"
            " so that no name begins with another one and a /"
        )
