"""What a picture looks like in 64 bits, so that one that was saved anew, smaller or larger, is found again.

A perceptual hash: signs of the lowest frequencies of the picture's cosine transform (Zauner 2010, "pHash"). The lowest
row and column, which drawings on an even ground have in common, are left out. A flipped picture is another one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Looks = npt.NDArray[np.uint64]
"""Of N pictures, uint64 [N]; 0 where it is not known."""
NEAR = 4
"""Bits of 64 in which two savings of a picture differ at most (docs/decisions/near-duplicates.md)."""
CANVAS = 32
"""Side of the smallest canvas that has looks, pixels."""

_SIDE = CANVAS  # of the picture that is transformed
_FAINTEST = 256.0  # of the strongest wave: it is a grey level high
_ALIKE = 0.12  # mean difference of two savings of a picture, in units of its own spread
_FEW_DETAILS, _ALIKE_OF_FEW = 0.22, 0.03  # share of the spread beyond the slowest waves; what then differs at most
_PAIRS = 1 << 22  # compared at a time
_FAR = 64  # bits
_SLOWEST = np.cos(np.pi / (2 * _SIDE) * np.arange(8)[:, None] * (2 * np.arange(_SIDE) + 1)) * np.sqrt(2 / _SIDE)
_SLOWEST[0] /= np.sqrt(2)
_COSINES = np.cos(np.pi / (2 * _SIDE) * np.arange(1, 9)[:, None] * (2 * np.arange(_SIDE) + 1)).astype(np.float32)


def looks_of(canvases: npt.NDArray[np.uint8]) -> Looks:
    """The looks of some canvases, uint8 [N, S, S, 3] 0 where there is nothing to be seen, or S is below 32.

    Canvases of two sides are not compared: they are looked at from the middle, as far as whole pixels go.
    """
    if not len(canvases) or canvases.shape[1] < CANVAS:
        return np.zeros(len(canvases), np.uint64)
    waves = (_COSINES @ _greens(canvases) @ _COSINES.T).reshape(len(canvases), 64)
    middle = np.partition(waves, 32, axis=1)[:, 32:33]
    found: Looks = np.packbits(waves > middle, axis=1).view(np.uint64)[:, 0]
    found[np.abs(waves).max(1) < _FAINTEST] = 0
    return found


def near_pairs(
    ours: Looks, theirs: Looks | None = None, at_most: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of pictures that look nearly the same, the nearest pairs first; those of unknown looks have none.

    Args:
        ours: [N].
        theirs: [M]; None: pairs among ours, each once, the first row first.
        at_most: Pairs of each row that comes first, the nearest ones; None: all, whose number may grow with N * M.
    """
    known, others = np.flatnonzero(ours), np.flatnonzero(ours if theirs is None else theirs)
    right = (ours if theirs is None else theirs)[others]
    found = [np.zeros((3, 0), np.int64)]
    size = max(1, _PAIRS // max(1, len(others)))
    for start in range(0, len(known), size):
        rows = known[start : start + size]
        apart = np.bitwise_count(ours[rows][:, None] ^ right)
        if theirs is None:
            apart[others <= rows[:, None]] = _FAR
        if at_most is not None:
            _thin(apart, at_most)
        first, second = np.nonzero(apart <= NEAR)
        found.append(np.stack([rows[first], others[second], apart[first, second]]))
    first, second, apart = np.concatenate(found, axis=1)
    order = np.lexsort([second, first, apart])
    return first[order], second[order]


def _thin(apart: npt.NDArray[np.uint8], at_most: int) -> None:
    """Of each row of distances leave those that are near and lowest, of equal ones the first."""
    crowded = np.flatnonzero((apart <= NEAR).sum(1) > at_most)
    order = apart[crowded].astype(np.int64) * apart.shape[1] + np.arange(apart.shape[1])
    apart[crowded[:, None], np.argpartition(order, at_most, axis=1)[:, at_most:]] = _FAR


def equal_pairs(looks: Looks) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each picture that looks exactly as an earlier one of the same pool, behind the first such one; rows of both."""
    known = np.flatnonzero(looks)
    _, first, group = np.unique(looks[known], return_index=True, return_inverse=True)
    firsts = known[first][group]
    again = firsts != known
    return firsts[again], known[again]


def same_picture(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> bool:
    """Whether two small canvases, uint8 [32, 32, 3], are savings of one picture, and not just of like shapes.

    Pictures that hold little beyond what their looks are made of, such as scans of 8 x 8 pixels, look alike by chance:
    they have to differ less.
    """
    ours, theirs = first.astype(np.float32), second.astype(np.float32)
    has_few = min(_details(ours), _details(theirs)) < _FEW_DETAILS
    alike = _ALIKE_OF_FEW if has_few else _ALIKE
    return bool(np.abs(ours - theirs).mean() <= alike * max(1.0, float(ours.std())))


def _details(canvas: npt.NDArray[np.float32]) -> float:
    """Share of a picture's spread, 0 to 1, that its 64 slowest waves leave."""
    greens = canvas[..., 1] - canvas[..., 1].mean()
    slow = float(np.square(_SLOWEST @ greens @ _SLOWEST.T).sum())
    return float(np.sqrt(max(0.0, 1 - slow / max(1.0, float(np.square(greens).sum())))))


def _greens(canvases: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Greens of the middle of canvases, float32 [N, 32, 32]; each is the mean of some pixels."""
    side = canvases.shape[1]
    step = max(1, side // (2 * _SIDE))
    wide = side // step // _SIDE
    edge, apart = (side - wide * step * _SIDE) // 2, wide * step
    ends = [edge + place * step for place in range(wide)]
    total = np.zeros((len(canvases), _SIDE, _SIDE), np.float32)
    for top in ends:
        for left in ends:
            total += canvases[:, top::apart, left::apart, 1][:, :_SIDE, :_SIDE]
    total /= wide**2
    return total
