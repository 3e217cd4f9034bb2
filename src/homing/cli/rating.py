"""The command that stops after the rates: of a recipe, or of rows that bring their features along."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from homing.cli.options import (
    Json,
    Overrides,
    Overwrite,
    Quiet,
    Resume,
    folder_of,
    recipe_path,
    shipped_names,
)
from homing.cli.runs import print_results
from homing.errors import RecipeError
from homing.interrupts import going_on_with_the_scan
from homing.launch import is_main
from homing.recipe.urls import is_url

_RATES_ALONE = ("training.epochs=0", "training.steps=null", "evaluation.baselines=[]")


def rate(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="a YAML file, or the name of a shipped recipe", autocompletion=shipped_names
        ),
    ] = None,
    overrides: Overrides = None,
    source: Annotated[str | None, typer.Option(help="instead of a recipe: table of the rows to rate")] = None,
    target: Annotated[str | None, typer.Option(help="with --source: table of the target's rows")] = None,
    features: Annotated[
        str | None, typer.Option(help="column of lists of numbers; or a file of the source's, .npy or .safetensors")
    ] = None,
    target_features: Annotated[str | None, typer.Option(help="the same of the target, where it is another")] = None,
    label: Annotated[str | None, typer.Option(help="column of the class", show_default="label")] = None,
    id: Annotated[str | None, typer.Option(help="column of the unique id", show_default="id")] = None,
    text: Annotated[str | None, typer.Option(help="column of the source that the report shows")] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="with --source: parts of the target that judge the rates", show_default="5"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="with --source: of folds and cross-fits", show_default="0")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="run folder; or a file .parquet or .csv: the rates alone")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn rates and stop: of a recipe's pools, or of tables whose rows bring features along.

    Example: homing rate my.yaml --output rates.parquet
    """
    more = {"label": label, "id": id, "target_features": target_features, "text": text, "folds": folds, "seed": seed}
    given = {name: value for name, value in more.items() if value is not None}
    if source is None:
        if recipe is None or target is not None or features is not None:
            raise RecipeError("give a RECIPE, or --source, --target, --features and --output for tables with features")
        if given:
            option = f"--{next(iter(given)).replace('_', '-')}"
            raise RecipeError(f"{option} goes with --source; a recipe says it itself (key.path=value overrides it)")
        _rate_recipe(recipe, overrides or [], output, resume, overwrite, as_json, quiet)
        return
    if recipe is not None or overrides:
        raise RecipeError(f"{recipe}: a recipe names its pools itself; leave it or --source away")
    if not (source and target and features and output):
        raise RecipeError("--source goes with --target, --features and --output; give all of them")
    if resume:
        raise RecipeError("--resume: rates of tables are learned in one go; begin again with --overwrite")
    if not is_main():
        return  # one process does all of it
    from homing.pools.vectors import FILES
    from homing.progress import Progress
    from homing.rating import Asked, rate_rows

    source, target = map(_from_anywhere, (source, target))
    files = {
        name: _from_anywhere(path)
        for name, path in (("features", features), ("target_features", target_features))
        if path is not None and path.lower().endswith(FILES)  # else it is the name of a column
    }
    asked = Asked(**{"source": source, "target": target, "features": features, **given, **files})  # type: ignore[arg-type]
    read = [source, target, *files.values()]
    with _folder_for(output, read, resume=False, overwrite=overwrite) as folder:
        results = rate_rows(asked, folder, Progress(quiet=quiet), overwrite=overwrite or folder != output)
    print_results(output, results, as_json)


def _from_anywhere(path: str) -> str:
    """A path as it is known from other working folders too."""
    return path if is_url(path) else os.path.abspath(path)


def _rate_recipe(
    recipe: str,
    overrides: list[str],
    output: Path | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from homing.recipe.reading import read_recipe

    checked = read_recipe(recipe_path(recipe), [*overrides, *_RATES_ALONE])
    from homing.outputs.run_folder import check_run_folder, pools_of

    asked = output or folder_of(checked.name)
    several = checked.by_target()
    if several and _is_file(asked):
        raise RecipeError(
            f"data.target names {', '.join(several)}, whose rates lie in a folder of each; {asked} is one file: give a"
            " folder"
        )
    with _folder_for(asked, pools_of(checked), resume=resume, overwrite=overwrite) as folder:
        begins = {"resume": resume, "overwrite": overwrite or folder != asked}
        check_run_folder(folder, checked, **begins)
        from homing.flow import run

        result = run(checked, folder, quiet=quiet, **begins)
    print_results(output or result.folder, result.results, as_json)


@contextmanager
def _folder_for(output: Path, pools: Iterable[str], *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The folder to work in; where the output is to be a file, one beside it of which the rates alone are kept.

    Raises:
        RecipeError: The file cannot be made, or touches one of the pools that are read.
    """
    from homing.outputs.lock import folder_lock
    from homing.outputs.pool_paths import check_output
    from homing.outputs.rates_table import check_new_file

    if not _is_file(output):
        yield output
        return
    if resume:
        raise RecipeError(f"--resume goes on with a run folder, and {output} is a file; leave it out")
    check_new_file(output, overwrite=overwrite)
    check_output(output, pools)
    folder = output.with_name(f".{output.name}.homing-run")
    if not is_main():
        yield folder
        return
    try:
        with folder_lock() as lock, going_on_with_the_scan():
            lock.take(folder, makes=True)
            check_new_file(output, overwrite=overwrite)  # once more: another process may have come and gone
            yield folder
            _keep_rates(folder, output)
    finally:
        with suppress(OSError):  # what was scanned until a stop lies in it, or something foreign
            folder.rmdir()


def _keep_rates(folder: Path, output: Path) -> None:
    """Write the rates of a run into a file of their own, and remove the run."""
    import pyarrow as pa

    from homing.outputs.ownership import remove_run
    from homing.outputs.rates_reader import RatesFile
    from homing.outputs.rates_table import write_pieces

    rates = RatesFile(folder / "rates.parquet")
    write_pieces(output, pa.schema(list(rates.kinds().items())), rates.pieces(rates.columns))
    remove_run(folder)


def _is_file(output: Path) -> bool:
    """Whether one file is wanted, and no folder."""
    from homing.outputs.rates_table import is_table_name

    return is_table_name(output) and not output.is_dir()


def register(app: typer.Typer) -> None:
    """Add the command of this file to the program."""
    app.command()(rate)
