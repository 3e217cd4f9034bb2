"""The image files below a folder: each once, in the order of their paths, whatever links lead where."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from homing.errors import DataError
from homing.pools.formats import SUFFIXES
from homing.pools.suffixes import PICTURE_LIKE, TABLE_LIKE, is_junk, suffix_of
from homing.pools.texts import Texts

_LISTED = 8
MAX_DEPTH = 64
"""Folders inside each other; a pool that is deeper is none."""


@dataclass
class Listing:
    """What lies below a folder.

    Attributes:
        files: Image files by their path inside it, in the order of code points.
        folders: Names of the folders directly in it.
        skipped: Suffix → files that are no images by their name.
        example: Suffix → the first such file.
        again: Folders that were listed already under another path (links), and that path.
        below: Folder directly in it that holds images → the folders directly in that one that do, at any depth; an
            empty name stands for images that lie in neither.
    """

    files: Texts = field(default_factory=Texts)
    folders: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    below: dict[str, set[str]] = field(default_factory=dict)

    def note_skipped(self, path: str) -> None:
        """A file that is no image by its name."""
        suffix = suffix_of(path)
        self.skipped[suffix] += 1
        first = self.example.get(suffix)
        if first is None or path < first:
            self.example[suffix] = path

    def note_folder(self, inside: str) -> None:
        """A folder that holds images; inside: its path in the pool, with a slash behind, or nothing."""
        first, second, *_ = [*inside.split("/"), "", ""]
        self.below.setdefault(first, set()).add(second)

    def doubts(self) -> list[str]:
        """What was left out that may have been meant as images, a sentence each."""
        found = []
        if odd := self._skipped_of(PICTURE_LIKE):
            kinds = self._described(odd)
            found.append(
                f"{sum(self.skipped[suffix] for suffix in odd):,} files were left out, for they are no images by their"
                f" names: {kinds}; convert or rename them, or move them away"
            )
        for path, first in sorted(self.again.items())[:_LISTED]:
            found.append(f"the folder {path!r} is the same as {first!r} and was listed once")
        if len(self.again) > _LISTED:
            found.append(f"... and {len(self.again) - _LISTED:,} further folders that were listed already")
        return found

    def unread_tables(self) -> str | None:
        """Tables that lie among the images and say nothing there, in one sentence; None where there are none."""
        odd = self._skipped_of(TABLE_LIKE)
        return f"tables were not read: {self._described(odd)}" if odd else None

    def _skipped_of(self, suffixes: frozenset[str]) -> list[str]:
        return sorted(suffix for suffix in self.skipped if suffix in suffixes)

    def _described(self, suffixes: list[str]) -> str:
        return ", ".join(
            f"{self.skipped[suffix]:,} {suffix or 'without a suffix'} (first: {self.example[suffix]!r})"
            for suffix in suffixes
        )


def list_images(root: Path) -> Listing:
    """Walk a folder.

    Links are followed, after everything that is reached without them: a folder that several paths lead to is listed
    once, under the first of them. Hidden files and what operating systems leave behind are left out.

    Raises:
        DataError: A folder cannot be listed, is too deep, or a name is not UTF-8.
    """
    walk = _Walk(root)
    try:
        walk.run()
    except OSError as error:
        where = _shown(error.filename or root)
        raise DataError(f"{where}: cannot be listed ({error.strerror}); mend its rights, or remove it") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{root}: the name {error.object!r} is not UTF-8; rename the file or folder") from None
    files = Texts(pa.chunked_array(walk.parts, pa.large_string()))
    walk.listing.files = files.take(files.order())
    walk.listing.folders.sort()
    return walk.listing


class _Walk:
    def __init__(self, root: Path) -> None:
        self.root, self.listing = str(root), Listing()
        self.parts: list[pa.Array] = []
        self.seen: dict[str, str] = {}  # real path of each folder visited → where it was met
        self.links: list[str] = [""]  # folders to visit after those that no link leads to

    def run(self) -> None:
        while self.links:
            self.links.sort(reverse=True)
            first = self.links.pop()
            stack = [(first, os.path.realpath(os.path.join(self.root, first)))]
            while stack:
                self._visit(*stack.pop(), stack)

    def _visit(self, inside: str, here: str, stack: list[tuple[str, str]]) -> None:
        if inside.count("/") > MAX_DEPTH:
            raise DataError(
                f"{self.root}: folders lie more than {MAX_DEPTH} deep, at {_shown(inside[:80])}...; give the folder"
                " that holds the classes"
            )
        folder = os.path.join(self.root, inside)
        if here in self.seen:
            self.listing.again[inside.rstrip("/")] = self.seen[here]
            return
        self.seen[here] = inside.rstrip("/") or "."
        names: list[str] = []
        below: list[tuple[str, str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    continue
                if _is_folder(entry):
                    if entry.is_symlink():
                        self.links.append(f"{inside}{entry.name}/")
                    else:
                        below.append((f"{inside}{entry.name}/", os.path.join(here, entry.name)))
                    if not inside:
                        self.listing.folders.append(entry.name)
                else:
                    self._file(entry.name, inside, names)
        stack += sorted(below, reverse=True)
        self._keep(inside, names)

    def _file(self, name: str, inside: str, names: list[str]) -> None:
        if suffix_of(name) in SUFFIXES:
            names.append(name)
        else:
            self.listing.note_skipped(inside + name)

    def _keep(self, inside: str, names: list[str]) -> None:
        if names:
            self.listing.note_folder(inside)
            self.parts.append(Texts(names).with_prefix(inside).plain())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: told as a file that cannot be read
        return False


def _shown(path: object) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()
