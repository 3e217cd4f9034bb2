"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to under another name; flushed and renamed where the block ends well, else removed."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write under another name, flush, rename."""
    with open_whole(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """JSON by the standard: numbers that are not finite become null."""
    write_whole(path, (json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n").encode())


def json_line(value: Any) -> str:
    """The same on one line, in ASCII: any terminal or pipe can take it."""
    return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
