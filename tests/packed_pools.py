"""Pools packed into archives: tar shards as WebDataset writes them, and zip files."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from drawn_pools import draw_picture, encoded
from homing.errors import DataError


def png(seed: int, number: int = 0, *, size: int = 24) -> bytes:
    """An encoded picture, no two alike."""
    return encoded(draw_picture(seed, number, size=size))


def told_by(action: Callable[[], object]) -> str:
    """What the error says that something ends in, of those that are meant for people; nothing where it ends well."""
    try:
        action()
    except (DataError, OSError) as error:
        return str(error)
    return ""


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar of members by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            add_member(archive, name, data)
    return path


def add_member(archive: tarfile.TarFile, name: str, data: bytes = b"", **facts: object) -> None:
    """One more member, with what is said of it beside its name and size."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in facts.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def samples(start: int, count: int, *, classes: tuple[str, ...] = ("cat", "dog"), seed: int = 7) -> dict[str, bytes]:
    """Members of some samples: a picture, its class as a text, and a JSON object."""
    found: dict[str, bytes] = {}
    for number in range(start, start + count):
        about = {"camera": number % 3, "key": f"k{number}", "box": [1, 2], "night": number % 2 == 0}
        found[f"{number:06d}.png"] = png(seed, number)
        found[f"{number:06d}.cls"] = f"{classes[number % len(classes)]}\n".encode()
        found[f"{number:06d}.json"] = json.dumps(about).encode()
    return found


def tar_folder(folder: Path, path: Path) -> Path:
    """A tar of an image folder, with the class beside each picture."""
    members = {}
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        members[f"{number:06d}.png"] = file.read_bytes()
        members[f"{number:06d}.cls"] = file.parent.name.encode()
    return write_tar(path, members)


def zip_folder(folder: Path, path: Path, *, top: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of an image folder, all of it or below a folder `top`."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{top}{file.relative_to(folder).as_posix()}")
    return path
