"""The commands that carry out a recipe: quickstart, run, compare, validate, report, recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homing.cli.options import (
    Json,
    OutputOption,
    Overrides,
    Overwrite,
    Quiet,
    RecipeArgument,
    Resume,
    answer,
    folder_of,
    recipe_path,
    several_methods,
    shipped_names,
)
from homing.errors import RecipeError
from homing.launch import is_main
from homing.methods import METHODS
from homing.recipe.reading import read_recipe, recipe_of_run, shipped_recipes

_CUT_SHORT = "quickstart cut short: its figures mean nothing"
_COMPARED = ",".join(name for name, method in METHODS.items() if method.is_compared)


def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="run folder")] = Path("homing-quickstart"),
    seed: Annotated[int, typer.Option(min=0, help="of the data and of the run")] = 0,
    short: Annotated[bool, typer.Option("--short", help="a few steps only, to see that everything works")] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw the demonstration's data, run it, and print how homing compares.

    Example: homing quickstart --output quickstart
    """
    data = output.resolve() / "data"
    overrides = [f"seed={seed}", *(f"data.{role}.path={data / role}" for role in ("source", "target", "test"))]
    if short:
        overrides += ["training.steps=8", f"name={_CUT_SHORT}"]
    recipe = read_recipe(shipped_recipes()["quickstart"], overrides)
    from homing.flow import run as run_recipe
    from homing.outputs.lock import folder_lock
    from homing.outputs.run_folder import check_run_folder, open_run_folder
    from homing.progress import Progress
    from homing.quickstart import draw_pools, num_pictures

    with folder_lock() as lock:
        if is_main():  # others of its group wait for it where the run begins
            check_run_folder(output, recipe, resume=resume, overwrite=overwrite)
            lock.take(output, makes=True)
            open_run_folder(output, recipe, resume=resume, overwrite=overwrite)
            with Progress(quiet=quiet).stage("draw digits", num_pictures()) as advance:
                draw_pools(data, seed, advance)
        result = run_recipe(recipe, output, resume=True, quiet=quiet)
    print_results(result.folder, result.results, as_json)
    if short and not as_json and is_main():
        print("These figures mean nothing: --short takes 8 steps, to see that everything works; run it without.")


def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: OutputOption = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    allow_change: Annotated[
        bool, typer.Option("--allow-change", help="with --resume: pools may have changed; rates follow the ids")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a recipe: scan, learn rates, fine-tune, evaluate, report.

    Example: homing run my.yaml training.epochs=3 --output runs/mine
    """
    checked = read_recipe(recipe_path(recipe), overrides or [])
    from homing.outputs.run_folder import check_run_folder

    folder = output or folder_of(checked.name)
    check_run_folder(folder, checked, resume=resume, overwrite=overwrite)
    from homing.flow import run as run_recipe

    result = run_recipe(checked, folder, resume=resume, overwrite=overwrite, allow_change=allow_change, quiet=quiet)
    print_results(result.folder, result.results, as_json)


def compare(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: OutputOption = None,
    methods: Annotated[
        str, typer.Option(help="baselines, with commas between them", autocompletion=several_methods)
    ] = _COMPARED,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="runs, each with a seed of its own")] = 3,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Is it worth it on these pools? The recipe's method beside others, over several seeds.

    Example: homing compare my.yaml --seeds 3 --output runs/compare
    """
    names = [name.strip() for name in methods.split(",") if name.strip()]
    checked = read_recipe(recipe_path(recipe), [*(overrides or []), f"evaluation.baselines=[{', '.join(names)}]"])
    from homing.compare import as_text
    from homing.compare import compare as compare_methods

    folder = output or folder_of(f"compare-{checked.name}")
    how = {"resume": resume, "overwrite": overwrite, "quiet": quiet}
    table = compare_methods(checked, checked.evaluation.baselines, seeds, folder, **how)
    answer(f"{as_text(table)}\n\npage: {folder / 'comparison.html'}", {"folder": str(folder), **table}, as_json)


def validate(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: OutputOption = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find everything that a run would refuse: the recipe, all images, the model, the output.

    Example: homing validate my.yaml
    """
    checked = read_recipe(recipe_path(recipe), overrides or [])
    from homing.progress import Progress
    from homing.validate import validate as validate_recipe

    folder = output or folder_of(checked.name)
    findings = validate_recipe(checked, Progress(quiet=quiet), folder, is_chosen=output is not None)
    answer("\n".join(findings.lines()), findings.as_dict(), as_json)
    raise typer.Exit(findings.exit_code)


def report(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]) -> None:
    """Write report.html again, from what lies in a run folder; of a run over several targets, that of each.

    Example: homing report runs/mine
    """
    from homing.outputs.report.page import write_report
    from homing.outputs.run_kinds import targets_of
    from homing.outputs.thumbnails import shown_of_recipe
    from homing.rating import shown_of_run

    for folder in [run_folder / name for name in targets_of(run_folder)] or [run_folder]:
        print(write_report(folder, shown_of_run(folder) or shown_of_recipe(recipe_of_run(folder))))


def recipes(
    name: Annotated[str | None, typer.Argument(help="print this recipe", autocompletion=shipped_names)] = None,
) -> None:
    """List the shipped recipes, or print one to start from.

    Example: homing recipes personalize > my.yaml
    """
    shipped = shipped_recipes()
    if name is None:
        for key, path in shipped.items():
            print(f"{key:12} {path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}")
    elif name in shipped:
        print(shipped[name].read_text(encoding="utf-8"), end="")
    else:
        raise RecipeError(f"there is no shipped recipe {name!r}; there are {', '.join(shipped)}")


def print_results(folder: Path, results: dict[str, Any], as_json: bool) -> None:
    """What a run came to."""
    if results:  # the first process has them
        from homing.outputs.table import summary

        answer(summary(folder, results), {"folder": str(folder), **results}, as_json)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    for command in (quickstart, run, compare, validate, report, recipes):
        app.command()(command)
