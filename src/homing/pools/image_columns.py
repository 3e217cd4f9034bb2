"""Which column of a table its images are in, or the paths of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from homing.errors import DataError
from homing.pools.class_names import quoted

PATH_COLUMNS = ("image", "file_name", "filename", "image_path", "filepath", "file_path", "path", "file", "image_file")
"""Columns of texts that are taken for paths of images without being named."""


def image_columns(schema: pa.Schema, features: Mapping[str, Any]) -> list[str]:
    """Columns that hold images, by what datasets says of them or else by their types."""
    said = [name for name in schema.names if _says_image(features.get(name))]
    return said or [field.name for field in schema if _looks_like_image(field)]


def image_column_of(schema: pa.Schema, features: Mapping[str, Any], root: Path | str, chosen: str | None) -> str:
    """The column that images are read from.

    Args:
        schema: Of the table.
        features: Column → what datasets says of it.
        root: The table, for messages.
        chosen: By the user; None: the one that looks like it.

    Raises:
        DataError: There is none, there are several and none of them is called image, or it holds no images or paths.
    """
    if chosen is not None and chosen not in schema.names:
        raise DataError(
            f"{root}: there is no column {chosen!r}; columns: {quoted(schema.names)}; set image_column to one"
        )
    name = chosen or _guessed(schema, features, root)
    kind = schema.field(name).type
    if not (holds_bytes(kind) or holds_paths(kind)):
        raise DataError(
            f"{root}: the images of column {name!r} are of the type {kind}; bytes, structs of bytes and path, or texts"
            " that are paths are wanted"
        )
    return name


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values are encoded images, or structs of `bytes` and `path`."""
    if pa.types.is_struct(kind):
        inner = {field.name: field.type for field in kind}
        return {"bytes", "path"} <= inner.keys() and (_is_bytes(inner["bytes"]) or pa.types.is_null(inner["bytes"]))
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def holds_paths(kind: pa.DataType) -> bool:
    """Whether values are texts."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _guessed(schema: pa.Schema, features: Mapping[str, Any], root: Path | str) -> str:
    images = image_columns(schema, features)
    if "image" in images or len(images) == 1:
        return "image" if "image" in images else images[0]
    if images:
        raise DataError(f"{root}: several image columns: {quoted(images)}; set image_column to the one to read")
    paths: list[str] = [
        name for name in schema.names if name.lower() in PATH_COLUMNS and holds_paths(schema.field(name).type)
    ]
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise DataError(f"{root}: several columns may hold paths of images: {quoted(paths)}; set image_column to one")
    kinds = ", ".join(f"{field.name!r} ({field.type})" for field in list(schema)[:20])
    more = f", ... {len(schema.names) - 20:,} more" if len(schema.names) > 20 else ""
    raise DataError(
        f"{root}: no image column; set image_column to the one of bytes, of structs of bytes and path, or of paths;"
        f" columns: {kinds or 'none'}{more}"
    )


def _says_image(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def _looks_like_image(field: pa.Field) -> bool:
    """A struct of bytes and path, or bytes in a column called image: what tables hold that datasets did not write."""
    kind = field.type
    if pa.types.is_struct(kind):
        return {"bytes", "path"} == {kind.field(n).name for n in range(kind.num_fields)}
    return field.name == "image" and bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
