"""Thumbnails for the report: which samples are shown, and their pictures as inline text."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from homing.errors import DataError
from homing.outputs.report.columns import Codes, RateColumns
from homing.pools.decoding import open_rgb

Pictures: TypeAlias = Callable[[list[str]], list[bytes | None]]
Sayings: TypeAlias = Callable[[list[str]], list[str | None]]

LARGEST_SIDE, SMALLEST_SIDE = 384, 64  # pixels of a picture's longer side
_MAX_PIXELS = 64_000_000  # as recipes have it at first: of a larger picture no thumbnail is shown
OVERALL_TILES = 24
CLASS_TILES = 12
MIN_CLASS_TILES = 4  # fewer say nothing; classes then have no choice of their own
MAX_CLASS_TILES = 150  # per gallery; above it the classes share what there is
MAX_INLINE_BYTES = 3_400_000  # of base64 text in the whole page
_MAX_PICTURE_BYTES = 40_000  # of base64 text; more is hardly seen
SHOWN_LETTERS = 240  # of a text


@dataclass(frozen=True)
class Shown:
    """What the report shows of samples, by their ids; asked once, for at most a few hundred.

    Attributes:
        pictures: Encoded picture of each, None where it is gone; None: they are no pictures.
        texts: What each says; None: they have no text.
        own: Pictures of target and test by role, where the page may show them.
    """

    pictures: Pictures | None
    texts: Sayings | None = None
    own: Mapping[str, Pictures] = field(default_factory=dict)


@dataclass(frozen=True)
class Tile:
    """One picture of a gallery.

    Attributes:
        sample_id: The sample's id.
        label: Its class as given.
        rate: Its rate.
        suggested: The class that the model would give, where the gallery is about labels.
        overall: Whether it belongs to the pool-wide choice.
        in_class: Whether it belongs to the choice within its class.
        picture: `data:` address of the thumbnail, None where the picture is missing.
        text: The beginning of what it says, None where it says nothing.
        num_of_class: How many of its class the gallery was chosen from.
    """

    sample_id: str
    label: str
    rate: float
    suggested: str | None
    overall: bool
    in_class: bool
    picture: str | None
    text: str | None
    num_of_class: int = 0


@dataclass(frozen=True)
class Gallery:
    """A row of pictures with a choice by class.

    Attributes:
        key: Short name for ids on the page.
        title: Heading.
        tiles: The pictures, first the most extreme.
        classes: Classes that have a choice of their own, sorted.
        num_found: How many samples the gallery was chosen from.
    """

    key: str
    title: str
    tiles: tuple[Tile, ...]
    classes: tuple[str, ...]
    num_found: int


@dataclass(frozen=True)
class Choice:
    """Rows of one gallery before their pictures are read.

    Attributes:
        key: Short name for ids on the page.
        title: Heading.
        rows: Row numbers, first the most extreme; overall and per-class choice together.
        overall: Which of `rows` belong to the pool-wide choice.
        in_class: Which of `rows` belong to the choice within their class.
        num_found: How many rows were ranked.
        by_class: The same by class, shape (classes,).
    """

    key: str
    title: str
    rows: Codes
    overall: frozenset[int]
    in_class: frozenset[int]
    num_found: int
    by_class: Codes


def choose(key: str, title: str, ranked: Codes, rates: RateColumns) -> Choice:
    """Choose the first rows of a ranking, overall and within each class.

    Args:
        key: Short name for ids on the page.
        title: Heading of the gallery.
        ranked: Row numbers, first the most extreme.
        rates: The columns that hold each row's class.
    """
    overall = ranked[:OVERALL_TILES]
    share = MAX_CLASS_TILES // max(1, len(rates.label.names))
    per_class = min(CLASS_TILES, share) if share >= MIN_CLASS_TILES else 0
    codes = rates.label.codes[ranked]
    by_class = np.argsort(codes, kind="stable")
    sorted_codes = codes[by_class]
    place = np.arange(len(ranked)) - np.searchsorted(sorted_codes, sorted_codes, side="left")
    within = ranked[np.sort(by_class[place < per_class])]
    positions = np.flatnonzero(np.isin(ranked, np.union1d(overall, within)))
    shown = frozenset(overall.tolist()), frozenset(within.tolist())
    counts = np.bincount(codes, minlength=len(rates.label.names))
    return Choice(key, title, ranked[positions], *shown, len(ranked), counts)


def doubtful_rows(rates: RateColumns) -> Codes:
    """Rank the rows whose own label the model would not give, the most doubtful first.

    By label consistency where it is known, else by rate; both from the lowest.
    """
    if rates.suggested is None:
        return np.empty(0, dtype=np.int64)
    names = rates.suggested.names
    own = {name: code for code, name in enumerate(rates.label.names)}
    as_label = np.array([own.get(name, -1) for name in names] or [-1], dtype=np.int64)
    known = np.array([name != "(none)" for name in names] or [False])
    codes = rates.suggested.codes
    rows = np.flatnonzero(known[codes] & (as_label[codes] != rates.label.codes))
    consistency = rates.descriptors.get("label_consistency")
    doubt = rates.rate[rows] if consistency is None else consistency[rows]
    return rows[np.argsort(doubt, kind="stable")].astype(np.int64)


def galleries(choices: Iterable[Choice], rates: RateColumns, shown: Shown) -> list[Gallery]:
    """Read every chosen picture and text once and lay the galleries out; empty choices are left out."""
    kept = [choice for choice in choices if len(choice.rows)]
    rows = np.unique(np.concatenate([choice.rows for choice in kept])) if kept else np.empty(0, dtype=np.int64)
    ids = dict(zip(rows.tolist(), rates.ids(rows), strict=True))
    times_shown = Counter(row for choice in kept for row in choice.rows.tolist())
    found: dict[str, str] = {}
    if shown.pictures is not None:
        found = inline({sample_id: times_shown[row] for row, sample_id in ids.items()}, shown.pictures)
    texts = _beginnings(list(ids.values()), shown.texts)
    return [_gallery(choice, rates, ids, found, texts) for choice in kept]


def _beginnings(ids: list[str], texts: Sayings | None) -> dict[str, str]:
    found = texts(ids) if texts is not None and ids else [None] * len(ids)
    return {sample_id: _beginning(text) for sample_id, text in zip(ids, found, strict=True) if text}


def _beginning(text: str) -> str:
    short = " ".join(text[: 8 * SHOWN_LETTERS].split())
    return short if len(short) <= SHOWN_LETTERS else f"{short[:SHOWN_LETTERS].rstrip()} …"


def _gallery(
    choice: Choice, rates: RateColumns, ids: dict[int, str], inlined: dict[str, str], texts: dict[str, str]
) -> Gallery:
    suggested = rates.suggested if choice.key == "doubtful" else None
    tiles = tuple(
        Tile(
            sample_id=ids[row],
            label=rates.label.names[rates.label.codes[row]],
            rate=float(rates.rate[row]),
            suggested=suggested.names[suggested.codes[row]] if suggested else None,
            overall=row in choice.overall,
            in_class=row in choice.in_class,
            picture=inlined.get(ids[row]),
            text=texts.get(ids[row]),
            num_of_class=int(choice.by_class[rates.label.codes[row]]),
        )
        for row in choice.rows.tolist()
    )
    classes = tuple(sorted({tile.label for tile in tiles if tile.in_class}))
    return Gallery(choice.key, choice.title, tiles, classes, choice.num_found)


def inline(times_shown: dict[str, int], pictures: Pictures, max_bytes: int = MAX_INLINE_BYTES) -> dict[str, str]:
    """Pictures of some ids as text, each as large as its share of the page allows.

    Args:
        times_shown: How often each stands on the page.
        pictures: Gives them.
        max_bytes: Of all of them together, as often as they are shown.
    """
    found: dict[str, str] = {}
    left, waiting = max_bytes, sum(times_shown.values())
    ids = list(times_shown)
    for sample_id, encoded in zip(ids, pictures(ids) if ids else [], strict=True):
        share = left // waiting
        address = thumbnail(encoded, share) if encoded is not None else None
        waiting -= times_shown[sample_id]
        if address is not None:
            found[sample_id] = address
            left -= len(address) * times_shown[sample_id]
    return found


def thumbnail(encoded: bytes, max_bytes: int = _MAX_PICTURE_BYTES) -> str | None:
    """Turn an encoded picture into a `data:` address, as large as fits.

    Args:
        encoded: Bytes of a picture in any format that pools are read in.
        max_bytes: Of the address, at most.

    Returns:
        The whole picture as WebP of at most 384 pixels a side, never enlarged; None where the bytes are no picture or
        no size fits.
    """
    try:
        whole = open_rgb(encoded, _MAX_PIXELS, at_least=LARGEST_SIDE)
    except DataError:
        return None
    side = min(LARGEST_SIDE, max(whole.size))
    for quality in (80, 80, 70, 20):
        whole.thumbnail((side, side))
        out = io.BytesIO()
        whole.save(out, format="WEBP", quality=quality, method=2)
        address = "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
        too_large = len(address) / min(max_bytes, _MAX_PICTURE_BYTES)
        if too_large <= 1:
            return address
        side = max(SMALLEST_SIDE, int(0.95 * side / math.sqrt(too_large)))
    return None
