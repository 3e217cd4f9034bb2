"""An image folder that was packed: which folder in the archive holds the classes."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.compute as pc

from homing.pools.folder import labels_of_folders
from homing.pools.layouts import check_layout, layout_doubts
from homing.pools.texts import Texts
from homing.pools.walking import Listing


def only_folder(folders: Iterable[str]) -> str:
    """The folder that was packed whole: the only one at the top, where it holds folders of images and no images.

    Args:
        folders: Those that hold images, by their path in the archive with a slash behind.

    Returns:
        Its name with a slash behind; nothing where there is none.
    """
    parts = [folder.split("/") for folder in folders]
    tops = {part[0] for part in parts}
    return "" if len(tops) != 1 or any(len(part) < 3 for part in parts) else f"{tops.pop()}/"


def classes_by_folder(keys: Texts, where: str) -> tuple[Texts, str, list[str]]:
    """The classes of samples in tar shards, by their folders.

    Args:
        keys: Of the samples; each lies in a folder.
        where: What to call the shards.

    Returns:
        Labels, what they come from, and what may have been meant otherwise, a sentence each.

    Raises:
        DataError: The folders are named for splits.
    """
    folders = Texts(pc.replace_substring_regex(keys.plain(), r"[^/]*$", "").dictionary_encode()).unique()
    top = only_folder(folders)
    listing = Listing()
    for folder in folders:
        listing.note_folder(folder.removeprefix(top))
    check_layout(listing, f"{where}/{top}".rstrip("/"), "pack each into a tar of its own")
    inside = Texts(pc.utf8_slice_codeunits(keys.plain(), len(top))) if top else keys
    place = f"in its folder {top!r}" if top else "in the shard"
    return labels_of_folders(inside, where), f"the folder directly {place}", layout_doubts(listing)
