"""The command line: parse, call, print. torch is imported only by commands that train or predict."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from homing.cli.corpora import register as register_corpus
from homing.cli.models import register
from homing.errors import HomingError, RecipeError
from homing.methods import METHODS
from homing.recipe.reading import read_recipe, recipe_of_run, shipped_recipes
from homing.threads import settle_threads

app = typer.Typer(
    name="homing",
    help="Fine-tune an image model for one domain, with a learned rate for every source sample.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_COMPARED = ",".join(name for name, method in METHODS.items() if method.is_compared)
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="a YAML file, or the name of a shipped recipe")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[key.path=value]...", help="settings to replace")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="run folder")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object to stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress on stderr")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with the run in the output folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the run in the output folder")]


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="run folder")] = Path("homing-quickstart"),
    seed: Annotated[int, typer.Option(min=0, help="of the data and of the run")] = 0,
    short: Annotated[bool, typer.Option("--short", help="a few steps only, to see that everything works")] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw the demonstration's data, run it, and print how homing compares."""
    data = output.resolve() / "data"
    overrides = [f"seed={seed}", *(f"data.{role}.path={data / role}" for role in ("source", "target", "test"))]
    if short:
        overrides.append("training.steps=8")
    recipe = read_recipe(shipped_recipes()["quickstart"], overrides)
    from homing.flow import run as run_recipe
    from homing.outputs.run_folder import open_run_folder
    from homing.progress import Progress
    from homing.quickstart import draw_pools, num_pictures

    open_run_folder(output, recipe, resume=resume, overwrite=overwrite)
    with Progress(quiet=quiet).stage("draw digits", num_pictures()) as advance:
        draw_pools(data, seed, advance)
    result = run_recipe(recipe, output, resume=True, quiet=quiet)
    _print_results(result.folder, result.results, as_json)


@app.command()
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
    """Carry out a recipe: scan, learn rates, fine-tune, evaluate, report."""
    checked = read_recipe(_recipe_path(recipe), overrides or [])
    from homing.outputs.run_folder import check_run_folder

    folder = output or _folder_of(checked.name)
    check_run_folder(folder, checked, resume=resume, overwrite=overwrite)
    from homing.flow import run as run_recipe

    result = run_recipe(checked, folder, resume=resume, overwrite=overwrite, allow_change=allow_change, quiet=quiet)
    _print_results(result.folder, result.results, as_json)


@app.command()
def compare(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: OutputOption = None,
    methods: Annotated[str, typer.Option(help="baselines, with commas between them")] = _COMPARED,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="runs, each with a seed of its own")] = 3,
    resume: Resume = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Is it worth it on these pools? The recipe's method beside others, over several seeds."""
    names = [name.strip() for name in methods.split(",") if name.strip()]
    checked = read_recipe(_recipe_path(recipe), [*(overrides or []), f"evaluation.baselines=[{', '.join(names)}]"])
    from homing.compare import as_text
    from homing.compare import compare as compare_methods
    from homing.outputs.artefact import json_line

    folder = output or _folder_of(f"compare-{checked.name}")
    table = compare_methods(checked, checked.evaluation.baselines, seeds, folder, resume=resume, quiet=quiet)
    if as_json and _is_main():
        print(json_line({"folder": str(folder), **table}))
    elif _is_main():
        print(as_text(table), file=sys.stderr)


@app.command()
def validate(recipe: RecipeArgument, overrides: Overrides = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Check a recipe and all its images before anything is trained."""
    checked = read_recipe(_recipe_path(recipe), overrides or [])
    from homing.outputs.artefact import json_line
    from homing.progress import Progress
    from homing.training.trackers import check_trackers
    from homing.validate import validate_data

    check_trackers(checked.output.trackers)
    findings = validate_data(checked, Progress(quiet=quiet))
    if as_json:
        print(json_line(findings.as_dict()))
    else:
        for line in findings.lines():
            print(line, file=sys.stderr)
    raise typer.Exit(3 if findings.errors else 0)


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")]) -> None:
    """Write report.html again, from what lies in a run folder."""
    from homing.outputs.thumbnails import thumbnails_of

    recipe = recipe_of_run(run_folder)
    from homing.outputs.report.page import write_report

    print(write_report(run_folder, thumbnails_of(recipe)))


register(app)
register_corpus(app)


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="print this recipe")] = None) -> None:
    """List the shipped recipes, or print one to start from."""
    shipped = shipped_recipes()
    if name is None:
        for key, path in shipped.items():
            print(f"{key:12} {path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}")
    elif name in shipped:
        print(shipped[name].read_text(encoding="utf-8"), end="")
    else:
        raise RecipeError(f"there is no shipped recipe {name!r}; there are {', '.join(shipped)}")


def _is_main() -> bool:
    """Whether this is the process that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _folder_of(name: str) -> Path:
    """Where a run goes unless told otherwise: a name that cannot lead elsewhere."""
    return Path("runs") / (re.sub(r"[^\w.-]+", "-", name).strip(".-") or "run")


def _recipe_path(text: str) -> Path:
    shipped = shipped_recipes()
    return shipped[text] if text in shipped and not Path(text).exists() else Path(text)


def _print_results(folder: Path, results: dict[str, Any], as_json: bool) -> None:
    if not (_is_main() and results):
        return
    from homing.outputs.artefact import json_line

    if as_json:
        print(json_line({"folder": str(folder), **results}))
        return
    from homing.outputs.table import rates_table, results_table, targets_table

    if "targets" in results:
        print(targets_table(results), file=sys.stderr)
        print(
            f"\nrates: {folder / 'NAME' / 'rates.parquet'}; who shares data: {folder / 'targets.csv'}", file=sys.stderr
        )
        return
    if results["headline"] == "none":
        print(rates_table(results), file=sys.stderr)
        print(f"\nrates: {folder / 'rates.parquet'}; next: homing corpus {folder} --output DIR", file=sys.stderr)
        return
    print((rates_table if results["target"] is None else results_table)(results), file=sys.stderr)
    print(f"\nreport: {folder / 'report.html'}", file=sys.stderr)


def main() -> None:
    """Entry point: errors become one message on stderr and the exit code of their kind."""
    settle_threads(os.environ)
    try:
        sys.exit(app(standalone_mode=False) or 0)  # what a typer.Exit asked for
    except HomingError as error:
        if _is_main():
            print(f"homing: {error}", file=sys.stderr)
        elif not error.shared:  # nobody else will tell it
            print(f"homing: process {os.environ['RANK']}: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(error.exit_code)
    except typer.Exit as exit_request:
        sys.exit(exit_request.exit_code)
    except typer.Abort:
        sys.exit(130)
    except OSError as error:  # a full disk, a folder without permission
        print(f"homing: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)


def _is_usage_error(error: Exception) -> bool:
    """Whether the command line itself was wrong (typer carries its own copy of click's classes)."""
    return hasattr(error, "show") and hasattr(error, "exit_code")


if __name__ == "__main__":
    main()
