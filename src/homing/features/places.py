"""Where the rows of a pool lie in a store."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from homing.features.keys import KeySet, Numbers, is_known
from homing.features.shards import Bytes, Index, Shard

UNKNOWN, BAD = -1, -2
"""In place of a shard's number: nothing is known of a row; its image cannot be used."""
_AT_ONCE = 1_000_000  # rows of indices that are looked through together
_KEPT = 16  # bytes of a digest that are held in memory for each row


@dataclass
class Places:
    """For each of N rows its shard, and its position in it.

    Attributes:
        shards: All shards that rows lie in.
        shard: int32 [N]: number of the shard, or UNKNOWN, or BAD.
        position: int32 [N].
        digests: uint8 [N, 16]: beginning of the sha256 of the image's bytes; 0 where that is not known.
        reasons: Why a row is BAD.
        blank: Rows that were decoded just now and are of one colour; no store remembers them.
    """

    shards: list[Shard]
    shard: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    digests: Bytes
    reasons: dict[int, str] = field(default_factory=dict)
    blank: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = {shard.name: number for number, shard in enumerate(self.shards)}

    @classmethod
    def nowhere(cls, count: int) -> Places:
        """Of `count` rows of which nothing is known."""
        nothing = np.full(count, UNKNOWN, np.int32)
        return cls([], nothing, nothing.copy(), np.zeros((count, _KEPT), np.uint8))

    def __len__(self) -> int:
        return len(self.shard)

    def missing(self) -> Numbers:
        """Rows of which nothing is known."""
        return np.flatnonzero(self.shard == UNKNOWN)

    def number_of(self, shard: Shard) -> int:
        """The number of a shard, which is noted where it is new."""
        number = self._numbers.setdefault(shard.name, len(self.shards))
        if number == len(self.shards):
            self.shards.append(shard)
        return number

    def take(self, rows: Numbers) -> Places:
        """Of some rows, in their order."""
        reasons = {}
        if self.reasons:
            shard = self.shard[rows]
            reasons = {int(place): self.reasons[int(rows[place])] for place in np.flatnonzero(shard == BAD)}
        return Places(list(self.shards), self.shard[rows], self.position[rows], self.digests[rows], reasons)

    def put(self, rows: Numbers, found: Places) -> None:
        """Note what was found of some rows. found: in the order of `rows`."""
        numbers = np.array([self.number_of(shard) for shard in found.shards], np.int32)
        shard = found.shard.copy()
        inside = shard >= 0
        if inside.any():
            shard[inside] = numbers[shard[inside]]
        self.shard[rows], self.position[rows], self.digests[rows] = shard, found.position, found.digests
        self.reasons |= {int(rows[place]): reason for place, reason in found.reasons.items()}
        self.blank += rows[found.blank].tolist()

    def save(self, path: Path) -> None:
        """Write to a file, whole or not at all; for the other processes of a scan."""
        from homing.outputs.artefact import open_whole

        names = np.array([shard.name for shard in self.shards], np.str_)
        reasons = np.array(list(self.reasons.values()), np.str_)
        with open_whole(path) as file:
            np.savez(
                file,
                names=names,
                shard=self.shard,
                position=self.position,
                digests=self.digests,
                bad=np.array(list(self.reasons), np.int64),
                blank=np.array(self.blank, np.int64),
                reasons=reasons,
            )

    @classmethod
    def load(cls, path: Path, folder: Path) -> Places:
        """Read what `save` wrote. folder: where the shards lie."""
        with np.load(path) as file:
            shards = [Shard(folder, str(name)) for name in file["names"]]
            reasons = dict(zip(file["bad"].tolist(), map(str, file["reasons"]), strict=True))
            blank = file["blank"].tolist()
            return cls(shards, file["shard"], file["position"], file["digests"], reasons, blank)


class Finder:
    """Goes over the indices of a store, one at a time, and finds rows by the states or the digests in them.

    What a later index says of a state counts more than what an earlier one says.

    Args:
        keys: uint8 [N, 16]: what is looked for; rows of zeros are found nowhere.
        by: Whether keys are states of files or digests of bytes.
    """

    def __init__(self, keys: Bytes, by: str) -> None:
        self.by, self.rows = by, np.flatnonzero(is_known(keys))
        self.keys, self.total = KeySet(keys[self.rows]), len(keys)
        count = len(self.keys)
        self._shard, self._position = np.full(count, UNKNOWN, np.int32), np.full(count, UNKNOWN, np.int32)
        self._digests = np.zeros((count, _KEPT), np.uint8)
        self._reasons: dict[int, str] = {}
        self._shards: list[Shard] = []
        self._waiting: list[tuple[int, Index]] = []

    def look_in(self, shard: Shard, index: Index) -> None:
        """Note which rows of a shard are among those looked for."""
        self._waiting.append((len(self._shards), index))
        self._shards.append(shard)
        if sum(len(one.positions) for _, one in self._waiting) >= _AT_ONCE:
            self._look()

    def _look(self) -> None:
        """Look through what waits: a million rows in one sweep over the keys take a fraction of many sweeps."""
        if not self._waiting:
            return
        indices = [index for _, index in self._waiting]
        numbers = np.repeat(
            np.array([number for number, _ in self._waiting], np.int32), [len(one.positions) for one in indices]
        )
        by = [index.states if self.by == "state" else index.digests for index in indices]
        found = self.keys.find(np.concatenate([np.ascontiguousarray(keys[:, :16]) for keys in by]))
        if self.by == "digest":  # an alias says no more than is known already
            found[np.concatenate([index.is_alias() for index in indices])] = -1
        hits = np.flatnonzero(found >= 0)
        which, positions = found[hits], np.concatenate([index.positions for index in indices])[hits]
        self._digests[which] = np.concatenate([index.digests[:, :_KEPT] for index in indices])[hits]
        self._position[which] = positions
        self._shard[which] = np.where(positions >= 0, numbers[hits], UNKNOWN)
        starts = np.cumsum([0, *(len(index.positions) for index in indices)]).tolist()
        bad = {start + at: why for start, one in zip(starts, indices, strict=False) for at, why in one.reasons.items()}
        if bad:  # unless a later row says another thing of the same key
            last = dict(zip(which.tolist(), hits.tolist(), strict=True))
            for place in bad.keys() & set(last.values()):
                self._shard[found[place]] = BAD
                self._reasons[int(found[place])] = bad[place]
        self._waiting.clear()

    def places(self) -> Places:
        """What was found, for all rows that were looked for."""
        self._look()
        found = Places.nowhere(self.total)
        used, renumbered = np.unique(self._shard[self._shard >= 0], return_inverse=True)
        self._shard[self._shard >= 0] = renumbered
        shards = [self._shards[number] for number in used.tolist()]
        for shard in shards:
            found.number_of(shard)
        found.shard[self.rows] = self._shard[self.keys.of_row]
        found.position[self.rows] = self._position[self.keys.of_row]
        found.digests[self.rows] = self._digests[self.keys.of_row]
        if self._reasons:
            for row in np.flatnonzero(found.shard == BAD):
                number = int(self.keys.of_row[np.searchsorted(self.rows, row)])
                found.reasons[int(row)] = self._reasons[number]
        return found
