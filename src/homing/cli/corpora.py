"""The commands that rates are for: write a corpus, rate new images, look after what is kept for the next run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homing.cli.options import (
    Config,
    ImageColumn,
    Json,
    Quiet,
    Rename,
    Revision,
    RootOption,
    Separator,
    Where,
    answer,
    pool_of,
    renamed,
)
from homing.errors import DataError, RecipeError
from homing.recipe.reading import recipe_of_run
from homing.terminal import counted

if TYPE_CHECKING:
    from homing.features.cache import Entry
    from homing.pools.images import BadImage
    from homing.recipe.data import PoolSpec

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]


def corpus(
    run_folder: RunArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="folder to make; or a file .parquet or .csv: the rates, no images")
    ],
    keep: Annotated[float | None, typer.Option(help="only the share with the highest rates, for example 0.3")] = None,
    per_class: Annotated[bool, typer.Option(help="--keep: that share of every class, or of all together")] = True,
    draw: Annotated[int | None, typer.Option("--resample", help="draw so many rows by rate, with copies")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of --resample")] = 0,
    column_only: Annotated[bool, typer.Option("--column-only", help="a parquet file of ids and rates alone")] = False,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="parquet (a dataset), folder (images), metadata (a table), webdataset (tar shards), lance"
        ),
    ] = "parquet",
    copy: Annotated[bool, typer.Option("--copy", help="--format folder: copy the files instead of linking")] = False,
    with_target: Annotated[
        bool, typer.Option("--with-target", help="the target's images too, each with the weight it is trained with")
    ] = False,
    loss_weights: Annotated[
        bool, typer.Option("--loss-weights", help="a column of mean 1, for who weights losses instead of drawing rows")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the source pool of a run with its rates: whole, the best share, or drawn by rate.

    Example: homing corpus runs/mine --output best --keep 0.3
    """
    from homing.outputs.corpus import Wanted, write_corpus
    from homing.outputs.rates_reader import RatesFile
    from homing.progress import Progress

    wanted = Wanted(keep, per_class, draw, seed, form, column_only, copy, with_target, loss_weights)
    wanted.check()
    count = len(RatesFile(run_folder / "rates.parquet"))
    sources, target = pools_of(run_folder)
    with Progress(quiet=quiet).stage("write corpus", count) as advance:
        summary = write_corpus(run_folder, sources, output, wanted, advance, target)
    of_target = f", and {counted(summary['target'], 'image')} of the target" if summary["target"] else ""
    answer(f"{output}: {summary['num_rows']:,} of {counted(summary['num_pool'], 'row')}{of_target}", summary, as_json)


def pools_of(run_folder: Path) -> tuple[Sequence[PoolSpec], PoolSpec]:
    """The source pools of a run, and its target: as its recipe names them, or what `homing rate` was told.

    Raises:
        DataError: It is no run.
    """
    from homing.outputs.run_kinds import results_of
    from homing.recipe.data import PoolSpec

    with suppress(OSError, ValueError, TypeError, KeyError):
        asked = results_of(run_folder)["asked"]
        columns = {"id_column": asked["id"], "label_column": asked["label"]}
        source, target = (PoolSpec(path=asked[role], **columns) for role in ("source", "target"))
        return [source], target
    data = recipe_of_run(run_folder).data
    return data.sources, data.target_pool


def score(
    run_folder: RunArgument,
    data: Annotated[
        str,
        typer.Argument(
            metavar="POOL", help="labelled images: any pool that a recipe takes; of a run of `homing rate`: a table"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write, .parquet or .csv")],
    features: Annotated[
        str | None, typer.Option(help="of a run of `homing rate`: column or file of features, where it is another")
    ] = None,
    split: Annotated[str | None, typer.Option(help="split of a saved dataset, or sub-folder")] = None,
    id_column: Annotated[str | None, typer.Option(help="column with a unique id")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the class")] = None,
    image_column: ImageColumn = None,
    root: RootOption = None,
    where: Where = None,
    separator: Separator = None,
    config: Config = None,
    revision: Revision = None,
    rename: Rename = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the output file")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rate images, or rows with features, that a run never saw, by what it learned; nothing is trained.

    Example: homing score runs/mine new-images --output new.parquet
    """
    from homing.outputs.rates_table import check_new_file

    check_new_file(output, overwrite=overwrite)
    from homing.outputs.run_kinds import is_of_rows
    from homing.progress import Progress

    columns = {"id_column": id_column, "label_column": label_column}
    more: dict[str, Any] = {"split": split, "image_column": image_column, "root": root, "where": where}
    more |= {"separator": separator, "config": config, "revision": revision, "rename": renamed(rename)}
    if is_of_rows(run_folder):
        from homing.rating import score_rows

        if wrong := [name for name, value in more.items() if value]:
            option = f"--{wrong[0].replace('_', '-')}"
            raise RecipeError(f"{option}: is of pools of images, and {run_folder} rated rows of tables; leave it out")
        found = {"features": features, "id": id_column, "label": label_column}
        summary = score_rows(run_folder, data, output, Progress(quiet=quiet), **found)
        bad: list[BadImage] = []
    else:
        from homing.score import score as score_images

        if features is not None:
            raise RecipeError(f"--features: {run_folder} makes features of images by itself; leave it out")
        bad, summary = score_images(run_folder, pool_of(data, **columns, **more), output, Progress(quiet=quiet))
    answer(f"{output}: {counted(summary['num_samples'], 'rate')}, mean {summary['mean_rate']:.3f}", summary, as_json)
    if bad:
        from homing.predict import describe_bad

        raise DataError(f"{describe_bad(bad, summary['num_samples'])}\nthey have rate 0; all others were rated")


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="remove all that no living run has in use")] = False,
    folder: Annotated[Path | None, typer.Option(help="where; default: the user's cache")] = None,
    as_json: Json = False,
) -> None:
    """Show or remove what is kept for the next run: features, decoded images, facts of pools, indices of archives.

    Example: homing cache --clear
    """
    from homing.features.cache import FeatureCache, user_cache

    place = folder or user_cache()
    if place is None:
        raise RecipeError("this user has no home folder, so no cache is kept; name one with --folder or $HOMING_CACHE")
    kept = FeatureCache(place, 0)
    removed = kept.clear() if clear else []
    entries = kept.entries()
    summary = {
        "folder": str(place),
        "entries": len(entries),
        "bytes": sum(entry.bytes for entry in entries),
        "kinds": _by_kind(entries),
        "removed": len(removed),
        "removed_bytes": sum(entry.bytes for entry in removed),
        "removed_kinds": _by_kind(removed),
    }
    held, others = [entry for entry in entries if entry.in_use], [entry for entry in entries if not entry.in_use]
    lines = _lines("removed", removed) + (
        _lines("in use by a living run, kept", held) + _lines("cannot be removed by this user, kept", others)
        if clear
        else _lines("kept", entries)
    )
    answer("\n".join([f"{place}:", *(lines or ["  nothing"])]), summary, as_json)


def _by_kind(entries: list[Entry]) -> dict[str, dict[str, int]]:
    """Kind → number of its files (a shard counts as one) and their bytes; kinds that are not there are left out."""
    found: dict[str, dict[str, int]] = {}
    for entry in entries:
        of_kind = found.setdefault(entry.what, {"entries": 0, "bytes": 0})
        of_kind["entries"] += 1
        of_kind["bytes"] += entry.bytes
    return dict(sorted(found.items()))


def _lines(what_of_them: str, entries: list[Entry]) -> list[str]:
    """A line for each kind."""
    return [
        f"  {kind}: {counted(of_kind['entries'], 'file' if kind == 'facts of pools' else 'shard')},"
        f" {of_kind['bytes'] / 1e6:,.1f} MB, {what_of_them}"
        for kind, of_kind in _by_kind(entries).items()
    ]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (corpus, score, cache):
        app.command()(command)
