"""`homing corpus`: the source pool of a run with its rates, whole, its best share, or drawn by rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from homing.errors import DataError, RecipeError
from homing.outputs.artefact import folder_whole
from homing.outputs.corpus_card import corpus_card
from homing.outputs.corpus_target import CorpusTarget, target_weight_of
from homing.outputs.corpus_writing import Wanted, write_parts, write_table
from homing.outputs.ownership import check_no_part_of_a_run
from homing.outputs.pool_paths import check_output
from homing.outputs.rates_reader import RatesFile
from homing.outputs.rates_table import check_new_file, is_table_name
from homing.outputs.run_folder import pools_of
from homing.outputs.run_kinds import results_of
from homing.outputs.selection import keep_best, resample, strata
from homing.recipe.reading import recipe_of_run

__all__ = ["Wanted", "check_new_folder", "write_corpus"]

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec


def write_corpus(
    run_folder: Path,
    sources: Sequence[PoolSpec],
    output: Path,
    wanted: Wanted,
    advance: Callable[[int], None] = lambda count: None,
    target: PoolSpec | None = None,
) -> dict[str, Any]:
    """Write a corpus into a new folder, or its rates into one file; there whole or not at all.

    The rates file goes by in pieces; what is held of each row is a few numbers (and, for pools whose ids are no file
    paths, the ids).

    Args:
        run_folder: Of a finished run.
        sources: The source pools of its recipe.
        output: Folder to make; it may exist if it is empty. Or a file `.parquet` or `.csv`: rows of the rates file.
        wanted: Which rows, and in what form.
        advance: Called with the number of rows of the rates file that went by.
        target: The target's pool, for `with_target`.

    Returns:
        `folder`, `form`, `num_pool` (rows of the rates file), `num_samples` (different ones in the corpus), `num_rows`
        (with copies), `unreadable` (left out), `target` (images of the target), and `classes`, rows by class.

    Raises:
        RecipeError: Options that exclude each other, or the output is in use.
        DataError: The rates or an image cannot be read.
    """
    wanted.check()
    is_file = is_table_name(output)
    if is_file:
        check_new_file(output)
        check_output(output, [spec.path for spec in sources])
        if wanted.with_target or wanted.form != "parquet":
            option = "--with-target" if wanted.with_target else f"--format {wanted.form}"
            raise RecipeError(f"{option} makes a folder, and {output} is a table; give a folder with --output")
    else:
        check_new_folder(output, sources)
    rates = RatesFile(run_folder / "rates.parquet")
    results = results_of(run_folder, ("dropped",))
    check_output(output, _read_by(run_folder, results))
    # ids and rates alone are those of all samples, also of what cannot be read
    usable = _usable(rates, frozenset() if wanted.column_only else _left_out(results, "source"))
    codes, names = (None, ()) if wanted.column_only else rates.classes()
    divided = codes if codes is None or not _has_sets(run_folder, results) else _strata(rates, codes, names, usable)
    counts = _counts(rates, divided, usable, wanted)
    own, share = None, _share(rates, usable, wanted)
    if wanted.with_target:
        taken = names if any(spec.labels != "shared" for spec in sources) else ()
        own = CorpusTarget.of(run_folder, target, results, _left_out(results, "target"), share, taken)
    scale = _mean_weight(rates, counts, own) if wanted.loss_weights else None
    if is_file or wanted.column_only:
        write_table(output if is_file else None, output, rates, counts, wanted, scale, advance)
    else:
        with folder_whole(output) as folder:
            classes = names if own is None else own.with_classes(names)
            features = write_parts(folder, rates, counts, classes, sources, own, wanted, scale, advance)
            weight = _target_weight(results, target, share)
            has_labels = all(spec.labels != "none" for spec in sources)
            card = corpus_card(
                results, wanted, counts, own, weight, scale, features, has_labels=has_labels, place=output.name
            )
            (folder / "README.md").write_text(card, encoding="utf-8")
    form = "table" if is_file else "column" if wanted.column_only else wanted.form
    return {
        "folder": str(output),
        "form": form,
        "num_pool": len(rates),
        "num_samples": int(np.count_nonzero(counts)),
        "num_rows": int(counts.sum()),
        "unreadable": int(np.count_nonzero(~usable)),
        "target": 0 if own is None else len(own),
        **({} if codes is None else {"classes": _by_class(codes, names, counts)}),
    }


def _read_by(run_folder: Path, results: dict[str, Any]) -> list[str]:
    """Paths of all pools that a run read, of its target and test too."""
    if asked := results.get("asked"):
        return [asked["source"], asked["target"]]
    return pools_of(recipe_of_run(run_folder))


def _has_sets(run_folder: Path, results: dict[str, Any]) -> bool:
    """Whether each row of a run has a set of labels; those of `homing rate` have one label each."""
    return "asked" not in results and recipe_of_run(run_folder).is_multi_label


def _strata(
    rates: RatesFile, codes: npt.NDArray[np.int32], sets: Sequence[str], usable: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """What a share is taken of where labels are sets.

    Raises:
        DataError: A label is no set.
    """
    try:
        return strata(codes, sets, usable)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{rates.path}: is damaged ({error}); run the recipe again") from error


def _share(rates: RatesFile, usable: npt.NDArray[np.bool_], wanted: Wanted) -> float:
    """What one unit of rate became: rows that were drawn weigh 1 each, and are as many as were asked for."""
    return 1.0 if wanted.draw is None else wanted.draw / float(rates.rates()[usable].sum(dtype=np.float64))


def _target_weight(results: dict[str, Any], target: PoolSpec | None, share: float) -> float | None:
    """How often an image of the target counts beside the corpus; None where it has no labels to train with."""
    weight = target_weight_of(results)
    return None if weight is None or (target is not None and target.labels == "none") else weight * share


def _by_class(codes: npt.NDArray[np.int32], names: Sequence[str], counts: npt.NDArray[np.int32]) -> dict[str, int]:
    totals = np.zeros(len(names), np.int64)
    np.add.at(totals, codes, counts)
    return dict(zip(names, totals.tolist(), strict=True))


def _mean_weight(rates: RatesFile, counts: npt.NDArray[np.int32], target: CorpusTarget | None) -> float:
    """Mean rate of all that is written.

    Raises:
        DataError: It is 0.
    """
    own = (0.0, 0) if target is None else (target.weight * len(target), len(target))
    kept = rates.rates()[counts > 0]
    total, number = float(kept.sum(dtype=np.float64)) + own[0], len(kept) + own[1]
    if not total > 0:
        raise DataError(f"{rates.path}: all rates are 0, so there are no weights of losses")
    return total / number


def check_new_folder(output: Path, sources: Sequence[PoolSpec]) -> None:
    """Whether a corpus can go there.

    Raises:
        RecipeError: Something is there, it is a part of a run, or it touches a source pool, which would then hold
            its own copies.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise RecipeError(f"{output}: is a file or link; give a new folder with --output")
    if output.is_dir() and any(output.iterdir()):
        raise RecipeError(f"{output}: already holds files; give a new folder with --output")
    check_no_part_of_a_run(output)
    check_output(output, [spec.path for spec in sources])


def _counts(
    rates: RatesFile, codes: npt.NDArray[np.int32] | None, usable: npt.NDArray[np.bool_], wanted: Wanted
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


def _left_out(results: dict[str, Any], role: str) -> frozenset[str]:
    """Ids of samples of a role that the run left out, because their image could not be read."""
    names = [str(item["image"]) for item in results["dropped"]]
    return frozenset(name.removeprefix(f"{role} ") for name in names if name.startswith(f"{role} "))


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
