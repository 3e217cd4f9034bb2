"""Image folders that can be read in two ways: refused where the reading is surely wrong, else told."""

from __future__ import annotations

import re
from pathlib import Path

from homing.errors import DataError
from homing.pools.class_names import quoted
from homing.pools.walking import Listing

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval|evaluation|holdout)(set|images|imgs|data|[-_ .\d])*"
)


def is_split_name(name: str) -> bool:
    """Whether something is named for a part of a data set: train, Validation, test_set, train2017."""
    return _SPLIT.fullmatch(name.strip().lower()) is not None


def is_of_split(file: str, split: str) -> bool:
    """Whether a file is called for a split: train.parquet, train-00000-of-00002.parquet, train_1.tar."""
    return re.match(rf"{re.escape(split)}([-.]|_?\d)", file) is not None


def split_in(file: str) -> str | None:
    """The split that a file is called for, if any."""
    found = re.match(r"(train|training|validation|valid|val|test|dev)([-._]|\d)", file.lower())
    return found.group(1) if found else None


def check_layout(listing: Listing, root: Path | str, remedy: str | None = None) -> None:
    """Refuse folders in which splits would become classes.

    Args:
        listing: Of the folder.
        root: What to call it.
        remedy: What to do, where neither `split` nor another path helps.

    Raises:
        DataError: Every folder is named for a split and one of them holds classes; or one that is named for a split
            holds the classes beside it once more.
    """
    inside = _below(listing)
    splits = [name for name in inside if is_split_name(name)]
    classes = set(inside) - set(splits)
    if classes:
        again = [name for name in splits if inside[name] & classes]
    else:
        again = [name for name in splits if inside[name] - {""} and "" not in inside[name]]
    if not again:
        return
    found = sorted(set().union(*(inside[name] for name in again)) - {""})
    if classes:
        remedy = remedy or "move it out of the pool, or read it alone with split"
        raise DataError(
            f"{root}: the folder {quoted(again)} is named for a split and holds classes that lie beside it"
            f" ({quoted(sorted(set(found) & classes))}); {remedy}"
        )
    raise DataError(
        f"{root}: the folders {quoted(splits)} are named for splits, not classes, and hold folders themselves"
        f" ({quoted(found)}); {remedy or f'name the one to read with split: {again[0]}, or give its path'}"
    )


def layout_doubts(listing: Listing) -> list[str]:
    """What of an image folder may have been meant otherwise than that the folders directly in it are the classes."""
    inside = _below(listing)
    found = []
    deep = {name: folders for name, folders in inside.items() if "" not in folders}
    shared = _in_several(list(inside.values()))
    if shared and all(map(is_split_name, shared)):
        found.append(
            f"folders inside of classes are named for splits ({quoted(sorted(shared))}) and were read as one; give one"
            " of them a pool of its own where they are splits"
        )
    elif len(inside) > 1 and len(deep) == len(inside) and len(shared) > 1:
        found.append(
            f"the classes are the folders {quoted(sorted(inside))}, and those hold the same folders"
            f" ({quoted(sorted(shared))}); where these are the classes, make each of the former a pool of its own"
        )
    elif len(deep) == len(inside) == 1 and len(shared := next(iter(deep.values()))) > 1:
        (name,) = inside
        found.append(
            f"the only class is the folder {name!r}, which holds the folders {quoted(sorted(shared))}; where these are"
            f" the classes, give the path of {name!r}"
        )
    odd = [
        name for name in inside if is_split_name(name) and name.lower() != "train"
    ]  # trains are a class of many sets
    if odd and len(odd) < len(inside):
        found.append(f"{quoted(sorted(odd))} is named for a split, and was read as a class like the others")
    elif odd:
        found.append(f"all classes are named for splits ({quoted(sorted(inside))})")
    return found


def _below(listing: Listing) -> dict[str, set[str]]:
    return {name: folders for name, folders in sorted(listing.below.items()) if name}


def _in_several(groups: list[set[str]]) -> set[str]:
    """What is in at least two of some sets; the empty name is left out."""
    seen: set[str] = set()
    found: set[str] = set()
    for group in groups:
        found |= group & seen
        seen |= group
    return found - {""}
