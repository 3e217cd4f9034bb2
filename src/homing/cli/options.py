"""What several commands take, and how they give their results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homing.errors import RecipeError
from homing.launch import is_main
from homing.methods import METHODS
from homing.recipe.reading import shipped_recipes
from homing.terminal import in_lines

if TYPE_CHECKING:
    from homing.recipe.data import PoolSpec


def shipped_names(incomplete: str) -> list[str]:
    """Shipped recipes for a shell to complete; where none begins so, it looks for files by itself."""
    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def several_methods(incomplete: str) -> list[str]:
    """Methods for a shell to complete, the last one of a list with commas."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in METHODS if name.startswith(last)]


RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="a YAML file, or the name of a shipped recipe", autocompletion=shipped_names),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[key.path=value]...", help="settings to replace")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="run folder")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object to stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress on stderr")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with the run in the output folder")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the run in the output folder")]
ImageColumn = Annotated[str | None, typer.Option(help="column with the images, or their paths")]
RootOption = Annotated[str | None, typer.Option("--root", help="folder where paths in a table begin")]
Where = Annotated[str | None, typer.Option(help="rows of a table to read, as in 'sender == 181'")]
Separator = Annotated[str | None, typer.Option(help="between the cells of a csv file: , ; | or tab")]
Config = Annotated[str | None, typer.Option(help="configuration of a dataset of the Hugging Face hub")]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of such a dataset")]
Rename = Annotated[
    list[str] | None,
    typer.Option(metavar="OLD=NEW", help="a class's name in this pool and in the run; may be repeated"),
]


def renamed(pairs: list[str] | None) -> dict[str, str]:
    """Old → new of each pair that a command is given.

    Raises:
        RecipeError: One is no pair, or names a class twice.
    """
    found: dict[str, str] = {}
    for pair in pairs or ():
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise RecipeError(f"--rename {pair!r}: give the name in the pool, =, and the name in the run (dogs=dog)")
        if found.setdefault(old, new) != new:
            raise RecipeError(f"--rename: {old!r} is to become {found[old]!r} and {new!r}; give it once")
    return found


def pool_of(path: str, **settings: str | tuple[str, ...] | dict[str, str] | None) -> PoolSpec:
    """The pool that a command is given by its path and options.

    Raises:
        RecipeError: An option has a value that is not allowed.
    """
    from pydantic import ValidationError

    from homing.recipe.data import PoolSpec

    try:
        return PoolSpec.model_validate({"path": path, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise RecipeError(f"--{name}: {first['msg']}, found {first['input']!r}") from None


def answer(text: str, value: Mapping[str, Any], as_json: bool) -> None:
    """Print what a command came to on stdout, in the first process alone: lines for people, or one JSON object."""
    from homing.outputs.artefact import json_line

    if is_main():
        print(json_line(value) if as_json else in_lines(text))


def folder_of(name: str) -> Path:
    """Where a run goes unless told otherwise: a name that cannot lead elsewhere."""
    return Path("runs") / (re.sub(r"[^\w.-]+", "-", name).strip(".-") or "run")


def recipe_path(text: str) -> Path:
    """A recipe file, or that of a shipped recipe's name."""
    shipped = shipped_recipes()
    return shipped[text] if text in shipped and not Path(text).exists() else Path(text)
