"""Paths of pools that name a dataset of the Hugging Face hub, and prefixes that timm reads otherwise."""

from __future__ import annotations

import os
import re
from pathlib import Path

from homing.errors import RecipeError

PREFIX = "hfds/"
"""What a dataset's name has in front where it could be a path: timm's own prefix."""
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_FILES = re.compile(r"(?i)\.(csv|tsv|jsonl|ndjson|json|parquet|arrow|tar|zip|lance|jpe?g|png|gz|txt|yaml)$")
_CONVERTED = {
    "hfids": "it is read whole, not as a stream: write hfds/USER/NAME",
    "torch": "save it once, as folders of classes: data = torchvision.datasets.NAME('.', download=True); for n, (image,"
    " label) in enumerate(data): (folder := Path('images', data.classes[label])).mkdir(parents=True, exist_ok=True);"
    " image.save(folder / f'{n}.png')",
    "tfds": "save it once: data = datasets.Dataset.from_generator(lambda: tfds.as_numpy(tfds.load('NAME',"
    " split='train'))); data.save_to_disk('saved')",
    "wds": "give the path of the .tar shards themselves, as in shards/train-{0000..0127}.tar",
}


def hub_name(path: str) -> str | None:
    """The name of a dataset that a path stands for: `hfds/` and a name, or user/name where no such path begins here.

    Raises:
        RecipeError: It begins as timm's names of other libraries' data sets do; says how to convert one.
    """
    if os.path.lexists(path):
        return None
    kind = path.partition("/")[0]
    if kind != path and kind in _CONVERTED and not os.path.isdir(kind):
        raise RecipeError(f"{path}: names of the kind {kind}/ are not read; {_CONVERTED[kind]}; then give that path")
    if path.startswith(PREFIX):
        name = path.removeprefix(PREFIX)
        if not (_NAME.fullmatch(name) or _NAME.fullmatch(f"a/{name}")):
            raise RecipeError(f"{path}: {name!r} is no name of a dataset; write {PREFIX}USER/NAME")
        return name
    if _NAME.fullmatch(path) is None or _FILES.search(path) or Path(kind).exists():
        return None
    return path
