"""The commands that use the model of a finished run: predict, evaluate, export."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Literal, cast

import typer

from homing.cli.options import Json, Quiet, answer
from homing.cli.streams import ForEyes
from homing.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]
MethodOption = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="of a baseline that was kept; default: the run's model")
]


def predict(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="images, folders of them, parquet files")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; default: stdout")] = None,
    form: Annotated[
        Literal["csv", "jsonl"] | None, typer.Option("--format", help="default: by the output's name, else csv")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the output file")] = False,
    method: MethodOption = None,
    quiet: Quiet = False,
) -> None:
    """Predict images with the model of a run: a row an image, with the probability of each class."""
    if output is not None and output.exists() and not (overwrite and output.is_file()):
        raise RecipeError(f"{output}: exists already; give another --output, or replace a file with --overwrite")
    if output is not None and not output.parent.is_dir():
        raise RecipeError(f"{output.parent}: no such folder; make it first")
    if output is not None:
        from homing.outputs.pool_paths import check_output

        check_output(output, [path for path in images if path.is_dir()])
    chosen = form or ("jsonl" if output is not None and output.suffix in (".jsonl", ".ndjson") else "csv")
    from homing.predict import describe_bad
    from homing.predict import predict as predict_images
    from homing.progress import Progress

    with _rows_to(output) as file:
        bad, total = predict_images(run, images, file, chosen, Progress(quiet=quiet), method=method)
    if output is not None:
        print(
            f"{output}: {total:,} images, {len(bad):,} of them cannot be read" if bad else f"{output}: {total:,} images"
        )
    if bad:
        raise DataError(f"{describe_bad(bad, total)}\nall others were predicted; these have rows that say why")


def evaluate(
    run: RunArgument,
    data: Annotated[str, typer.Argument(metavar="DATA", help="labelled images: any pool that a recipe takes")],
    split: Annotated[str | None, typer.Option(help="split of a saved dataset, or sub-folder")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the class")] = None,
    method: MethodOption = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the model of a run on labelled images: accuracy with its interval, macro F1, NLL, calibration."""
    from homing.outputs.table import score_lines
    from homing.predict import evaluate as evaluate_model
    from homing.progress import Progress
    from homing.recipe.schema import PoolSpec

    spec = PoolSpec(path=data, split=split, label_column=label_column)
    found = evaluate_model(run, spec, Progress(quiet=quiet), method=method)
    answer("\n".join(score_lines(found)), found, as_json)


def export(
    run: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to make")],
    form: Annotated[Literal["timm", "onnx"], typer.Option("--format", help="what to write")] = "timm",
    licence: Annotated[str | None, typer.Option("--license", help="licence named in the model card")] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAME", help="also upload to this repository (made private)")
    ] = None,
    method: MethodOption = None,
    quiet: Quiet = False,
) -> None:
    """Write the model of a run for use elsewhere: a timm folder or ONNX, each with a model card."""
    from homing.outputs.export import export_model
    from homing.outputs.hub import push

    export_model(run, form, output, licence=licence, method=method)
    print(f"{output}: written")
    if push_to_hub is not None:
        print(f"uploaded to {push(output, push_to_hub)}")


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    for command in (predict, evaluate, export):
        app.command()(command)


@contextmanager
def _rows_to(output: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears when all its rows are written."""
    if output is None:
        yield cast(IO[str], ForEyes(sys.stdout)) if sys.stdout.isatty() else sys.stdout
        return
    from homing.outputs.artefact import open_whole

    with open_whole(output) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        yield text
        text.flush()
        text.detach()
