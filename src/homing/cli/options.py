"""What several commands take, and how they give their results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from homing.launch import is_main
from homing.methods import METHODS
from homing.recipe.reading import shipped_recipes
from homing.terminal import in_lines


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
