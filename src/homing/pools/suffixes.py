"""What files of a pool are: images by their suffix, junk of operating systems, or something else."""

from __future__ import annotations

import os

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables that say more of the images of a folder."""
PICTURE_LIKE = frozenset(
    {"", ".heic", ".heif", ".jxl", ".avif", ".jp2", ".j2k", ".jpx", ".svg", ".psd", ".eps", ".ico", ".icns", ".tga"}
    | {".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".exr", ".hdr", ".dcm", ".pdf"}
    | {".qoi", ".dds", ".pcx", ".npy", ".npz", ".webm", ".mp4", ".avi", ".mov", ".zip", ".tar", ".gz", ".7z", ".rar"}
)
"""Suffixes of files that may well have been meant as images (or hold some): leaving such out is a warning."""
TABLE_LIKE = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".parquet", ".arrow"})
"""Suffixes of tables, which may well have been meant to say more of the images than their folders do."""
_JUNK_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini"})
_JUNK_FOLDERS = frozenset(
    {"__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin"}
    | {"system volume information", "lost+found", "found.000"}
)


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or one that an operating system or a NAS leaves behind."""
    low = name.lower()
    return name.startswith(".") or low in _JUNK_FILES or low in _JUNK_FOLDERS


def suffix_of(name: str) -> str:
    """What a file's name ends in, small letters, with the dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()
