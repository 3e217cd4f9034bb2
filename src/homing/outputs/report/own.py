"""The report's view of the target's own images, where the recipe asked for it (`output.show_target`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from homing.outputs.report.data import mapping, number
from homing.outputs.report.pictures import Pictures, Shown, inline

_MAX_BYTES = 1_000_000  # of base64 text, for both galleries


@dataclass(frozen=True)
class OwnTile:
    """One image: its label, what the model says and its loss (None: not asked), its picture where it is found."""

    sample_id: str
    label: str
    predicted: str | None
    loss: float | None
    picture: str | None


@dataclass(frozen=True)
class OwnGallery:
    """Some images of the target or of the test."""

    key: str
    title: str
    tiles: tuple[OwnTile, ...]


def own_galleries(results: dict[str, Any], shown: Shown) -> list[OwnGallery]:
    """The target's images and those with the largest loss; empty where the run's recipe did not ask for them."""
    found = mapping(results.get("own_images"))
    of = "test" if found.get("of") == "test" else "target"
    asked = (
        ("own", "The target’s own images", "target", found.get("target")),
        ("hardest", f"{of.capitalize()} images with the largest loss", of, found.get("hardest")),
    )
    return [_gallery(key, title, rows, shown.own.get(role)) for key, title, role, rows in asked if rows]


def _gallery(key: str, title: str, rows: Any, pictures: Pictures | None) -> OwnGallery:
    images = [mapping(row) for row in rows] if isinstance(rows, list) else []
    times = dict.fromkeys((str(row.get("id")) for row in images), 1)
    found = {} if pictures is None else inline(times, pictures, _MAX_BYTES // 2)
    tiles = tuple(
        OwnTile(
            str(row.get("id")),
            str(row.get("label") or ""),
            None if row.get("predicted") is None else str(row["predicted"]),
            number(row.get("loss")),
            found.get(str(row.get("id"))),
        )
        for row in images
    )
    return OwnGallery(key, title, tiles)
