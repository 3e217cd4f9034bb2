"""`homing corpus`: the source pool of a run with its rates, whole, its best share, or drawn by rate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from homing.errors import DataError, RecipeError
from homing.outputs.artefact import folder_whole
from homing.outputs.corpus_forms import CorpusRow, Form, ImageDataset, ImageFolder, MetadataTable, RatesTable
from homing.outputs.pool_paths import check_output
from homing.outputs.rates_reader import RatesFile
from homing.outputs.selection import keep_best, resample
from homing.pools.lookup import ImagesById
from homing.pools.reading import files_are_ids

if TYPE_CHECKING:
    from homing.recipe.schema import PoolSpec

FORMS = ("parquet", "folder", "metadata")


@dataclass(frozen=True)
class Wanted:
    """What corpus to write.

    Attributes:
        keep: The share with the highest rates, (0, 1]; None for all.
        per_class: Take that share of every class alike.
        draw: Rows to draw by rate, instead.
        seed: Of the draw.
        form: parquet, folder or metadata.
        column_only: Ids and rates alone, instead of all that.
        copy: Copy image files, instead of linking to them.
    """

    keep: float | None = None
    per_class: bool = True
    draw: int | None = None
    seed: int = 0
    form: str = "parquet"
    column_only: bool = False
    copy: bool = False

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
        if self.draw is not None and self.draw < 1:
            raise RecipeError(f"--resample is {self.draw}; give the number of rows to draw, at least 1")
        if self.form not in FORMS:
            raise RecipeError(f"--format is {self.form!r}; give {', '.join(FORMS)}")
        if self.copy and (self.form != "folder" or self.column_only):
            raise RecipeError("--copy is about the files of --format folder; add that, or leave it out")


def write_corpus(
    run_folder: Path,
    sources: Sequence[PoolSpec],
    output: Path,
    wanted: Wanted,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Write a corpus into a new folder, which is there whole or not at all.

    The rates file goes by in pieces; what is held of each row is a few numbers (and, for pools whose ids are no file
    paths, the ids).

    Args:
        run_folder: Of a finished run.
        sources: The source pools of its recipe.
        output: Folder to make; it may exist if it is empty.
        wanted: Which rows, and in what form.
        advance: Called with the number of rows of the rates file that went by.

    Returns:
        `folder`, `form`, `num_pool` (rows of the rates file), `num_samples` (different ones in the corpus), `num_rows`
        (with copies), `unreadable` (left out), and `classes`, rows by class.

    Raises:
        RecipeError: Options that exclude each other, or the folder is in use.
        DataError: The rates or an image cannot be read.
    """
    wanted.check()
    check_new_folder(output, sources)
    rates = RatesFile(run_folder / "rates.parquet")
    if wanted.column_only:
        with folder_whole(output) as folder:
            pieces = _counted(rates.pieces(RatesTable.columns), advance)
            RatesTable().write_pieces(folder, pieces)
        return _summary(output, "column", rates, len(rates), len(rates)) | {"unreadable": 0}
    unreadable = _unreadable(run_folder)
    codes, names = rates.classes()
    usable = _usable(rates, unreadable)
    counts = _counts(rates, codes, usable, wanted)
    with folder_whole(output) as folder:
        _form(rates, names, sources, wanted).write(folder, _rows(rates, counts, advance))
    totals = np.zeros(len(names), np.int64)
    np.add.at(totals, codes, counts)
    summary = _summary(output, wanted.form, rates, int(np.count_nonzero(counts)), int(counts.sum()))
    by_class = dict(zip(names, totals.tolist(), strict=True))
    return summary | {"unreadable": int(np.count_nonzero(~usable)), "classes": by_class}


def check_new_folder(output: Path, sources: Sequence[PoolSpec]) -> None:
    """Whether a corpus can go there.

    Raises:
        RecipeError: Something is there, or it touches a source pool, which would then hold its own copies.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise RecipeError(f"{output}: is a file or link; give a new folder with --output")
    if output.is_dir() and any(output.iterdir()):
        raise RecipeError(f"{output}: already holds files; give a new folder with --output")
    check_output(output, [spec.path for spec in sources])


def _counts(
    rates: RatesFile, codes: npt.NDArray[np.int32], usable: npt.NDArray[np.bool_], wanted: Wanted
) -> npt.NDArray[np.int32]:
    if wanted.keep is None and wanted.draw is None:
        return usable.astype(np.int32)
    values = rates.rates()
    if wanted.keep is not None:
        return keep_best(values, codes if wanted.per_class else None, usable, wanted.keep)
    if not values[usable].any():
        raise DataError(f"{rates.path}: all rates are 0, so nothing can be drawn by rate")
    assert wanted.draw is not None
    return resample(values, usable, wanted.draw, wanted.seed)


def _form(rates: RatesFile, names: Sequence[str], sources: Sequence[PoolSpec], wanted: Wanted) -> Form:
    columns = [name for name in rates.columns if name not in ("sample_id", "image", "copy", "copies", "file_name")]
    if wanted.form == "metadata":
        return MetadataTable(columns, ids_are_paths=all(map(files_are_ids, sources)))
    images = ImagesById(sources)
    if wanted.form == "folder":
        return ImageFolder(images, columns, copy=wanted.copy)
    return ImageDataset(images, columns, names)


def _rows(rates: RatesFile, counts: npt.NDArray[np.int32], advance: Callable[[int], None]) -> Iterator[CorpusRow]:
    start = 0
    for piece in _counted(rates.pieces(rates.columns), advance):
        wanted = np.flatnonzero(counts[start : start + len(piece)])
        for offset, values in zip(wanted, piece.take(wanted).to_pylist(), strict=True):
            yield CorpusRow(start + int(offset), int(counts[start + offset]), values)
        start += len(piece)


def _counted(pieces: Iterator[Any], advance: Callable[[int], None]) -> Iterator[Any]:
    for piece in pieces:
        yield piece
        advance(len(piece))


def _unreadable(run_folder: Path) -> frozenset[str]:
    """Ids of source samples that the run left out, because their image could not be read."""
    try:
        results = json.loads((run_folder / "results.json").read_text(encoding="utf-8"))
        names = [str(item["image"]) for item in results["dropped"]]
    except FileNotFoundError:
        raise DataError(f"{run_folder}: holds no results.json, so it is no finished run") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run_folder / 'results.json'}: is damaged ({error}); run the recipe again") from error
    return frozenset(name.removeprefix("source ") for name in names if name.startswith("source "))


def _usable(rates: RatesFile, unreadable: frozenset[str]) -> npt.NDArray[np.bool_]:
    usable = np.ones(len(rates), np.bool_)
    if unreadable:
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted, start = pa.array(sorted(unreadable), pa.string()), 0
        for piece in rates.pieces(["sample_id"]):
            found = pc.is_in(piece.column(0).cast(pa.string()), value_set=wanted)
            usable[start : start + len(piece)] = ~found.to_numpy(zero_copy_only=False)
            start += len(piece)
    return usable


def _summary(output: Path, form: str, rates: RatesFile, num_samples: int, num_rows: int) -> dict[str, Any]:
    pool = len(rates)
    return {"folder": str(output), "form": form, "num_pool": pool, "num_samples": num_samples, "num_rows": num_rows}
