"""Which files a checkpoint is made of: these are removed with it, and nothing else that came to lie in its folder."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_KEYS = {"format", "files", "sha256"}


def manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint; an empty one where there is none that could be ours."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((folder / MANIFEST).read_bytes())
        if isinstance(found, dict) and found.keys() >= _KEYS and isinstance(found["files"], dict):
            return found
    return {}


def files_of(folder: Path) -> list[Path]:
    """Files of a checkpoint, the manifest first: those that it lists; without one, those that look like parts."""
    listed = manifest_in(folder).get("files")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() or path.is_symlink()]
    first = [path for path in files if path.name == MANIFEST]
    is_part = _looks_like_a_part if listed is None else listed.__contains__
    return first + [path for path in files if path not in first and is_part(path.name)]


def _looks_like_a_part(name: str) -> bool:
    return name == "state.json" or name.endswith(".safetensors")


def remove_checkpoint(folder: Path) -> None:
    """Remove the files of a checkpoint, and its folder where nothing else lies in it.

    Raises:
        OSError: A file cannot be removed.
    """
    for path in files_of(folder):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
