"""What corpus is wanted, and its rows going by into the form that it is wanted in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from homing.errors import RecipeError
from homing.outputs.artefact import folder_whole
from homing.outputs.corpus_forms import CorpusRow, Form, ImageDataset, ImageFolder, MetadataTable
from homing.outputs.corpus_shards import LanceTable, WebDataset
from homing.outputs.corpus_target import CorpusTarget
from homing.outputs.rates_reader import RatesFile
from homing.outputs.rates_table import write_pieces
from homing.outputs.selection import MOST_DRAWN
from homing.pools.lookup import ImagesById
from homing.pools.reading import files_are_ids

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec

FORMS = ("parquet", "folder", "metadata", "webdataset", "lance")
OWN_COLUMNS = frozenset({"image", "file_name", "label_index", "copy", "copies", "loss_weight"})
"""What corpora of any form add to the rates: a column of the rates file that is called so is left out of all."""


@dataclass(frozen=True)
class Wanted:
    """What corpus to write.

    Attributes:
        keep: The share with the highest rates, (0, 1]; None for all.
        per_class: Take that share of every class alike.
        draw: Rows to draw by rate, instead.
        seed: Of the draw.
        form: One of `FORMS`.
        column_only: Ids and rates alone, instead of all that.
        copy: Copy image files, instead of linking to them.
        with_target: Write the target's images too, each with the rate that it is trained with.
        loss_weights: Add a column by which losses are weighted; its mean over all that is written is 1.
    """

    keep: float | None = None
    per_class: bool = True
    draw: int | None = None
    seed: int = 0
    form: str = "parquet"
    column_only: bool = False
    copy: bool = False
    with_target: bool = False
    loss_weights: bool = False

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            RecipeError: Says which options exclude each other, or what is allowed.
        """
        given = {
            "--keep": self.keep is not None,
            "--resample": self.draw is not None,
            "--column-only": self.column_only,
        }
        if sum(given.values()) > 1:
            raise RecipeError(f"{' and '.join(name for name in given if given[name])} exclude each other; give one")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise RecipeError(f"--keep is {self.keep:g}; give a share above 0 and up to 1, for example 0.3")
        if self.draw is not None and not 1 <= self.draw <= MOST_DRAWN:
            raise RecipeError(
                f"--resample is {self.draw:,}; give the number of rows to draw, at least 1 and at most {MOST_DRAWN:,}"
            )
        if self.form not in FORMS:
            raise RecipeError(f"--format is {self.form!r}; give {', '.join(FORMS)}")
        if self.loss_weights and self.draw is not None:
            raise RecipeError(
                "--loss-weights and --resample exclude each other: rows that are drawn by rate weigh alike"
            )
        if self.with_target and self.column_only:
            raise RecipeError("--with-target and --column-only exclude each other: the target has no column of rates")
        if self.column_only and self.form != "parquet":
            raise RecipeError(f"--format {self.form} and --column-only exclude each other; give one")
        if self.draw is None and self.seed:
            raise RecipeError("--seed is about the rows of --resample; add that, or leave it out")
        if self.keep is None and not self.per_class:
            raise RecipeError("--no-per-class is about the share of --keep; add that, or leave it out")
        if self.copy and (self.form != "folder" or self.column_only):
            raise RecipeError("--copy is about the files of --format folder; add that, or leave it out")


def write_parts(
    folder: Path,
    rates: RatesFile,
    counts: npt.NDArray[np.int32],
    names: Sequence[str],
    sources: Sequence[PoolSpec],
    target: CorpusTarget | None,
    wanted: Wanted,
    scale: float | None,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """The source, and where it is wanted the target: in folders of their own where names do not keep them apart.

    Returns:
        Features that `datasets` has to be told, as it would find others; none of most forms.
    """
    features: dict[str, Any] = {}
    columns = [name for name in rates.columns if name != "sample_id" and name not in OWN_COLUMNS]
    columns += ["loss_weight"] if scale is not None else []
    rows = {"train": _rows(rates, counts, scale, advance)}
    pools: dict[str, Sequence[PoolSpec]] = {"train": sources}
    if target is not None:
        rows["target"], pools["target"] = target.rows(columns, scale), [target.spec]
    for part, of_part in rows.items():
        place = folder
        if target is not None and wanted.form in ("folder", "metadata"):
            place = folder / part
            place.mkdir()
        form = _form(rates, columns, names, pools[part], wanted)
        form.write(place, of_part, part)
        features |= form.features() if isinstance(form, WebDataset) else {}
    return features


def write_table(
    file: Path | None,
    folder: Path,
    rates: RatesFile,
    counts: npt.NDArray[np.int32],
    wanted: Wanted,
    scale: float | None,
    advance: Callable[[int], None],
) -> None:
    """Columns of the rates file alone: as a file, or as `rates.parquet` in a folder."""
    import pyarrow as pa

    columns = [name for name in rates.columns if name not in OWN_COLUMNS]
    columns = ["sample_id", "rate"] if wanted.column_only else columns
    kinds = rates.kinds()
    more = [("loss_weight", pa.float32())] if scale is not None else []
    more += [("copies", pa.int32())] if wanted.draw is not None else []
    schema = pa.schema([*((name, kinds[name]) for name in columns), *more])

    def pieces() -> Iterator[Any]:
        start = 0
        for piece in _counted(rates.pieces(columns), advance):
            own = counts[start : start + len(piece)]
            start += len(piece)
            taken = piece.take(np.flatnonzero(own))
            added: list[Any] = [np.asarray(taken.column("rate"), np.float32) / scale] if scale is not None else []
            added += [own[own > 0]] if wanted.draw is not None else []
            yield pa.record_batch([*taken.columns, *map(pa.array, added)], schema=schema)

    if file is not None:
        write_pieces(file, schema, pieces())
        return
    with folder_whole(folder) as unfinished:
        write_pieces(unfinished / "rates.parquet", schema, pieces())


def _form(
    rates: RatesFile, columns: Sequence[str], names: Sequence[str], pools: Sequence[PoolSpec], wanted: Wanted
) -> Form:
    import pyarrow as pa

    if wanted.form == "metadata":  # ids of several pools begin with a pool's name, which is no folder
        return MetadataTable(columns, ids_are_paths=len(pools) == 1 and files_are_ids(pools[0]))
    images = ImagesById(pools)
    images.open()

    def kinds(column: str) -> Any:  # one that is added may be called as one of the rates file, which is left out
        return pa.float32() if column in OWN_COLUMNS else rates.plain_kind(column)

    if wanted.form == "folder":
        return ImageFolder(images, columns, copy=wanted.copy)
    if wanted.form == "webdataset":
        return WebDataset(images, columns, names, kinds)
    if wanted.form == "lance":
        return LanceTable(images, columns, kinds)
    return ImageDataset(images, columns, names, kinds)


def _rows(
    rates: RatesFile, counts: npt.NDArray[np.int32], scale: float | None, advance: Callable[[int], None]
) -> Iterator[CorpusRow]:
    start = 0
    for piece in _counted(rates.pieces(rates.columns), advance):
        wanted = np.flatnonzero(counts[start : start + len(piece)])
        for offset, values in zip(wanted, piece.take(wanted).to_pylist(), strict=True):
            if scale is not None:
                values["loss_weight"] = values["rate"] / scale
            yield CorpusRow(start + int(offset), int(counts[start + offset]), values)
        start += len(piece)


def _counted(pieces: Iterator[Any], advance: Callable[[int], None]) -> Iterator[Any]:
    for piece in pieces:
        yield piece
        advance(len(piece))
