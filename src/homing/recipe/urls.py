"""Paths of pools that are URLs: which kinds are read, and that no secret stands in one."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from homing.errors import RecipeError

SCHEMES = ("s3", "gs", "hf", "file")
"""What a URL of a pool may begin with; file:// is a path of this machine."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(path: str) -> bool:
    """Whether a path is a URL, and not one of this machine's file systems."""
    return _URL.match(path) is not None


def checked_url(url: str) -> str:
    """The same URL, or the path that a file:// names.

    Raises:
        RecipeError: It is of another kind, or holds what may be a secret, which is not printed.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        raise RecipeError(f"a path begins with {scheme}://; pools are read from {', '.join(SCHEMES)}, or a local path")
    if "@" in parts.netloc or ":" in parts.netloc or parts.query or parts.fragment:
        raise RecipeError(
            f"a {scheme}:// path holds a user, a password or a query (what is behind ? or #), which do not belong in a"
            " recipe; give credentials as fsspec takes them, by the environment or by configuration files, and the path"
            " without them"
        )
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise RecipeError(f"file://{parts.netloc} is another machine; write file:///folder, or the path alone")
        return unquote(parts.path)
    if not parts.netloc:
        raise RecipeError(f"{url}: names no bucket; write {scheme}://BUCKET/PATH")
    return f"{scheme}://{parts.netloc}{parts.path}".rstrip("/")
