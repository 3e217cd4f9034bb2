"""`homing scan`: features ahead of any run, whole or one part of many."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from homing.cli.options import Json, Overrides, Quiet, RecipeArgument, answer, recipe_path
from homing.errors import RecipeError
from homing.recipe.reading import read_recipe
from homing.terminal import counted


def scan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    part: Annotated[
        str,
        typer.Option(metavar="K/N", help="only the K-th of N parts, from 1: for an array of jobs that share a folder"),
    ] = "1/1",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="who scans; ray: pip install 'homing[ray]'")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="of a Ray cluster; default: one on this machine")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="read images again that look unchanged")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute the features of all pools of a recipe into output.cache; a run afterwards finds them there.

    Example: homing scan recipe.yaml output.cache=/shared/features --part 3/64
    """
    checked = read_recipe(recipe_path(recipe), overrides or [])
    wanted = _part(part)
    from homing.progress import Progress
    from homing.scanning import scan_recipe

    found = scan_recipe(checked, Progress(quiet=quiet), part=wanted, engine=engine, address=address, verify=verify)
    text = f"{counted(found.num_scanned, 'image')} scanned, of {found.num_rows:,}: {found.store}"
    answer(text, found.as_dict(), as_json)


def _part(text: str) -> tuple[int, int]:
    """`3/64` as (3, 64).

    Raises:
        RecipeError: It is none of 1/N to N/N.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    number, total = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= total:
        raise RecipeError(f"--part {text!r}: write K/N with K from 1 to N, for example --part 3/64")
    return number, total


def register(app: typer.Typer) -> None:
    """Add the command of this file to the program."""
    app.command()(scan)
