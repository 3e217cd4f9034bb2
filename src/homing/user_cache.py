"""The folder in which things are kept from run to run, unless a recipe or the user says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

INDEX_FOLDER = "indices"
"""Folder in it for the indices of archives, a file each; counted, limited and cleared like features."""
INDEX_NAMES = f"tar-{'[0-9a-f]' * 40}.parquet"
"""What those files are called; nothing else in the folder is ours."""


def user_cache() -> Path | None:
    """Where it is: $HOMING_CACHE, else below the user's cache folder.

    None for a user without a home folder (of a container that knows a number alone).
    """
    if own := os.environ.get("HOMING_CACHE"):
        return Path(own)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "homing"
    try:
        return Path.home() / ".cache" / "homing"
    except RuntimeError:
        return None
