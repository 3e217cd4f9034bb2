"""The commands that use the model of a finished run: predict, evaluate, export."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, cast

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
from homing.cli.streams import ForEyes
from homing.errors import DataError, RecipeError
from homing.terminal import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="folder of a finished run, or one that `homing export` wrote")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda:1, mps; default: a GPU where there is one")]
BatchSize = Annotated[int, typer.Option(min=1, help="images at a time")]
MethodOption = Annotated[
    str | None, typer.Option("--method", metavar="NAME", help="of a baseline that was kept; default: the run's model")
]


def predict(
    run: ModelArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="images, folders of them, parquet files")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; default: stdout")] = None,
    form: Annotated[
        Literal["csv", "jsonl", "parquet"] | None,
        typer.Option("--format", help="default: by the output's name, else csv"),
    ] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="also write what the head sees of each image: a .npy or .parquet file")
    ] = None,
    device: Device = None,
    batch_size: BatchSize = 64,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the output files")] = False,
    method: MethodOption = None,
    quiet: Quiet = False,
) -> None:
    """Predict images with the model of a run: a row an image, with the probability of each class.

    Example: homing predict runs/mine photos --output predictions.csv
    """
    for file in filter(None, (output, embeddings)):
        _check_file(file, [*map(str, images), *_pools_of(run)], overwrite=overwrite)
    if output is not None and embeddings is not None and output.resolve() == embeddings.resolve():
        raise RecipeError(f"--embeddings {embeddings}: is the --output too; give each a file of its own")
    chosen = form or _form_of(output)
    if chosen == "parquet" and output is None:
        raise RecipeError("--format parquet is a file; give one with --output")
    if embeddings is not None and embeddings.suffix not in (".npy", ".parquet"):
        raise RecipeError(f"--embeddings {embeddings}: give a file whose name ends in .npy or .parquet")
    from homing.predict import describe_bad
    from homing.predict import predict as predict_images
    from homing.progress import Progress

    how = {"device": device, "batch_size": batch_size, "embeddings": embeddings, "method": method}
    with _rows_to(output, binary=chosen == "parquet") as rows:
        bad, total = predict_images(run, images, rows, chosen, Progress(quiet=quiet), **how)  # type: ignore[arg-type]
    if output is not None:
        print(f"{output}: {counted(total, 'image')}" + (f", {len(bad):,} of them cannot be read" if bad else ""))
    if bad:
        raise DataError(f"{describe_bad(bad, total)}\nall others were predicted; these have rows that say why")


def evaluate(
    run: ModelArgument,
    data: Annotated[str, typer.Argument(metavar="DATA", help="labelled images: any pool that a recipe takes")],
    split: Annotated[str | None, typer.Option(help="split of a saved dataset, or sub-folder")] = None,
    label_column: Annotated[str | None, typer.Option(help="column with the class")] = None,
    label_columns: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="multi_label: a column of 0 and 1 for each of these classes")
    ] = None,
    image_column: ImageColumn = None,
    root: RootOption = None,
    where: Where = None,
    separator: Separator = None,
    config: Config = None,
    revision: Revision = None,
    rename: Rename = None,
    device: Device = None,
    batch_size: BatchSize = 64,
    method: MethodOption = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the model of a run on labelled images: accuracy with its interval, macro F1, NLL, calibration.

    Example: homing evaluate runs/mine photos-test
    """
    from homing.outputs.table import score_lines
    from homing.predict import evaluate as evaluate_model
    from homing.progress import Progress

    spec = pool_of(
        data,
        split=split,
        label_column=label_column,
        label_columns=None if label_columns is None else tuple(label_columns.split(",")),
        image_column=image_column,
        root=root,
        where=where,
        separator=separator,
        config=config,
        revision=revision,
        rename=renamed(rename),
    )
    how = {"device": device, "batch_size": batch_size, "method": method}
    found = evaluate_model(run, spec, Progress(quiet=quiet), **how)  # type: ignore[arg-type]
    answer("\n".join(score_lines(found)), found, as_json)


def export(
    run: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to make")],
    form: Annotated[Literal["timm", "onnx"], typer.Option("--format", help="what to write")] = "timm",
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], typer.Option(help="of the weights; 16 bits: half the bytes")
    ] = "float32",
    licence: Annotated[str | None, typer.Option("--license", help="licence named in the model card")] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAME", help="also upload to this repository (made private)")
    ] = None,
    method: MethodOption = None,
    quiet: Quiet = False,
) -> None:
    """Write the model of a run for use elsewhere: a timm folder or ONNX, each with a model card.

    Example: homing export runs/mine --format onnx --output mine-onnx
    """
    from homing.outputs.export import export_model
    from homing.outputs.hub import push

    export_model(run, form, output, licence=licence, dtype=dtype, method=method)
    print(f"{output}: written")
    if push_to_hub is not None:
        print(f"uploaded to {push(output, push_to_hub)}")


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the program."""
    for command in (predict, evaluate, export):
        app.command()(command)


def _pools_of(model: Path) -> list[str]:
    """Pools of the run that a model is of; none of what was exported."""
    from homing.outputs.run_folder import pools_of
    from homing.recipe.reading import recipe_of_run

    return pools_of(recipe_of_run(model)) if (model / "recipe.yaml").is_file() else []


def _check_file(file: Path, images: list[str], *, overwrite: bool) -> None:
    """Whether a file can be written.

    Raises:
        RecipeError: It is there, its folder is not, it is a run's own, or it touches the images or a pool.
    """
    if file.exists() and not (overwrite and file.is_file()):
        raise RecipeError(f"{file}: exists already; give another name, or replace a file with --overwrite")
    if not file.parent.is_dir():
        raise RecipeError(f"{file.parent}: no such folder; make it first")
    from homing.outputs.ownership import check_no_part_of_a_run
    from homing.outputs.pool_paths import check_output

    check_no_part_of_a_run(file)
    check_output(file, images)


def _form_of(output: Path | None) -> Literal["csv", "jsonl", "parquet"]:
    """The format that a file's name asks for."""
    suffix = "" if output is None else output.suffix.lower()
    return "parquet" if suffix == ".parquet" else "jsonl" if suffix in (".jsonl", ".ndjson") else "csv"


@contextmanager
def _rows_to(output: Path | None, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Standard output, or a file that appears when all its rows are written."""
    if output is None:
        yield cast(IO[str], ForEyes(sys.stdout)) if sys.stdout.isatty() else sys.stdout
        return
    from homing.outputs.artefact import open_whole

    with open_whole(output) as file:
        if binary:
            yield file
            return
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        yield text
        text.flush()
        text.detach()
