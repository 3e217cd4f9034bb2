"""What the outputs of large runs cost: `rates.parquet`, the report, a corpus, scores of new images.

Each stage runs in a process of its own over synthetic rates (classes of unequal size, a matching share, wrong labels);
pictures are real ones. `beyond_table_mb` is what the stage held at most beyond what it was given: the table of rates
(`rates_file`), or nothing but the program (all others).
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scale import apart, stopwatch

CLASSES, BLOCK, SIDE = 1_000, 65_536, 32
CASES = [
    {"stage": "rates_file", "rows": 1_000_000, "classes": CLASSES},
    {"stage": "rates_file", "rows": 10_000_000, "classes": CLASSES},
    {"stage": "corpus", "rows": 1_000_000, "classes": CLASSES},
    {"stage": "corpus", "rows": 10_000_000, "classes": CLASSES},
    {"stage": "corpus_webdataset", "rows": 1_000_000, "classes": CLASSES},
    {"stage": "corpus_lance", "rows": 1_000_000, "classes": CLASSES},
    {"stage": "corpus_parquet", "rows": 1_000_000, "classes": CLASSES},
    {"stage": "report", "rows": 1_000_000, "classes": CLASSES},
    {"stage": "score", "rows": 1_000_000, "classes": 4},
]
Row = dict[str, Any]


def columns_of(start: int, stop: int, classes: int) -> dict[str, Any]:
    """Rows of a synthetic rates file: a tenth matches, a tenth is labelled wrongly."""
    generator = np.random.default_rng(start)
    count = stop - start
    labels = (classes * generator.random(count) ** 2).astype(np.int32)
    matches, wrong = generator.random(count) < 0.1, generator.random(count) < 0.1
    likeness = generator.normal(np.where(matches, 2.0, -1.0)).astype(np.float32)
    names = pa.array([f"class-{number:04d}" for number in range(classes)])
    ids = pa.array([f"class-{label:04d}/photo-{row:09d}.jpg" for row, label in enumerate(labels.tolist(), start)])
    other = pa.array((labels + 1) % classes, mask=~wrong)
    return {
        "sample_id": ids,
        "source": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array(["pool"])),
        "label": pa.DictionaryArray.from_arrays(labels, names),
        "rate": (np.exp(likeness) * np.where(wrong, 0.2, 1.0)).astype(np.float32),
        "target_likeness": likeness,
        "label_consistency": generator.normal(np.where(wrong, -4.0, -0.3)).astype(np.float32),
        "suggested_label": names.take(other),
    }


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Bounds of blocks of rows."""
    return ((start, min(rows, start + BLOCK)) for start in range(0, rows, BLOCK))


def draw_run(folder: Path, rows: int, source: str = "pool") -> None:
    """The folder of a run that stopped after its rates, of a source beside it."""
    from homing.rates.rates_writer import RatesWriter

    folder.mkdir()
    with (folder / "rates.parquet").open("wb") as file:
        writer = RatesWriter(file)
        for start, stop in blocks(rows):
            writer.add(columns_of(start, stop, CLASSES))
        writer.close()
    data = {"source": {"name": "pool", "digest": "0", "num_samples": rows}, "classes": []}
    results = {"headline": "none", "target": None, "rates": {}, "data": data, "warnings": [], "dropped": []}
    (folder / "results.json").write_text(json.dumps(results))
    pools = {role: {"path": str(folder.parent / "pool"), "name": "pool"} for role in ("source", "target")}
    pools["source"] |= {"path": str(folder.parent / source)} | ({} if source == "pool" else {"id_column": "id"})
    (folder / "recipe.yaml").write_text(json.dumps({"data": pools, "training": {"steps": 1}}))
    (folder.parent / "pool").mkdir()


def run_rates_file(folder: Path, rows: int) -> float:
    """Write `rates.parquet`; returns MB held before."""
    import torch

    from homing.memory import peak_rss_mb
    from homing.outputs.rates_file import write_rates
    from homing.pools.pool import Pool
    from homing.pools.texts import Texts

    held: dict[str, list[Any]] = {}
    numbers: dict[str, np.ndarray] = {}
    for start, stop in blocks(rows):
        for name, values in columns_of(start, stop, CLASSES).items():
            if isinstance(values, np.ndarray):
                numbers.setdefault(name, np.empty(rows, np.float32))[start:stop] = values
            elif name != "suggested_label":
                held.setdefault(name, []).append(values)
    texts = {name: Texts(pa.chunked_array(parts)) for name, parts in held.items()}
    ids, labels, sources = (texts[name] for name in ("sample_id", "label", "source"))
    pool: Any = Pool("pool", ids, labels, None, sources, {}, np.empty(0, np.int64))  # type: ignore[arg-type]
    tensors = {name: torch.from_numpy(values) for name, values in numbers.items()}
    rates, visits = tensors.pop("rate"), torch.zeros(rows, dtype=torch.int32)
    before = peak_rss_mb()
    write_rates(folder / "rates.parquet", pool, rates, descriptors=tensors, visits=visits)
    return before


def run_corpus(folder: Path, rows: int, **wanted: Any) -> float:
    """The best 30 % of each class as a table."""
    from homing.memory import peak_rss_mb
    from homing.outputs.corpus import Wanted, write_corpus
    from homing.recipe.reading import recipe_of_run

    before = peak_rss_mb()
    sources = recipe_of_run(folder / "run").data.sources
    how = Wanted(**(wanted or {"keep": 0.3, "form": "metadata"}))
    write_corpus(folder / "run", sources, folder / "corpus", how)
    return before


def run_resample(folder: Path, rows: int) -> float:
    """As many rows as there are, drawn by rate."""
    return run_corpus(folder, rows, draw=rows, form="metadata")


def run_column(folder: Path, rows: int) -> float:
    """Ids and rates alone."""
    return run_corpus(folder, rows, column_only=True)


def draw_table(folder: Path, rows: int) -> None:
    """A run over a table of as many rows, each with one of a few pictures in it."""
    draw_run(folder / "run", rows, "pool.parquet")
    drawn = pa.array([picture(number) for number in range(64)], pa.binary())
    schema = pa.schema([("id", pa.string()), ("label", pa.string()), ("image", pa.binary())])
    with pq.ParquetWriter(folder / "pool.parquet", schema) as writer:
        for start, stop in blocks(rows):
            known = columns_of(start, stop, CLASSES)
            pictures = drawn.take(pa.array(np.arange(start, stop) % len(drawn)))
            columns = [known["sample_id"], known["label"].cast(pa.string()), pictures]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=8_192)


def run_form(form: str) -> Callable[[Path, int], float]:
    """Every row with its picture, in one of the forms."""
    return lambda folder, rows: run_corpus(folder, rows, form=form)


def run_report(folder: Path, rows: int) -> float:
    """The report, with a picture for each sample that it shows."""
    from homing.memory import peak_rss_mb
    from homing.outputs.report.page import write_report

    before = peak_rss_mb()
    write_report(folder / "run", lambda ids: [picture(0)] * len(ids))
    return before


def picture(number: int) -> bytes:
    """A small JPEG."""
    from PIL import Image

    pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def draw_pool(folder: Path, rows: int) -> None:
    """A run of a tiny net over small pictures, and a table of pictures to score."""
    from homing.flow import run
    from homing.recipe.schema import Recipe

    drawn = [picture(number) for number in range(256)]
    for role, count in (("source", 64), ("target", 8)):
        for number in range(count):
            place = folder / role / f"{number % 4}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.jpg").write_bytes(drawn[number])
    pools = {role: {"path": str(folder / role)} for role in ("source", "target")}
    model = {"backbone": "test_resnet", "weights": "none", "image_size": SIDE}
    tree = {"data": pools, "model": model, "rates": {"folds": 2}, "training": {"epochs": 0}}
    run(Recipe.model_validate(tree), folder / "run", quiet=True)
    schema = pa.schema([("id", pa.string()), ("label", pa.string()), ("image", pa.binary())])
    with pq.ParquetWriter(folder / "new.parquet", schema) as writer:
        for start, stop in blocks(rows):
            places = range(start, stop)
            columns = [[str(n) for n in places], [str(n % 4) for n in places], [drawn[n % 256] for n in places]]
            writer.write_table(pa.table(columns, schema=schema))


def run_score(folder: Path, rows: int) -> float:
    """Rates for pictures in a table."""
    from homing.memory import peak_rss_mb
    from homing.progress import Progress
    from homing.recipe.data import PoolSpec
    from homing.score import score

    before = peak_rss_mb()
    spec = PoolSpec(path=str(folder / "new.parquet"), id_column="id")
    score(folder / "run", spec, folder / "scores.parquet", Progress(quiet=True))
    return before


def nothing(folder: Path, rows: int) -> None:
    """No preparation."""


Work = tuple[Callable[[Path, int], None], Callable[[Path, int], float]]


def with_run(folder: Path, rows: int) -> None:
    """The run whose outputs are read."""
    draw_run(folder / "run", rows)


PARTS: dict[str, Work] = {
    "rates_file": (nothing, run_rates_file),
    "corpus": (with_run, run_corpus),
    "corpus_resample": (with_run, run_resample),
    "corpus_column": (with_run, run_column),
    **{f"corpus_{form}": (draw_table, run_form(form)) for form in ("webdataset", "lance", "parquet")},
    "report": (with_run, run_report),
    "score": (draw_pool, run_score),
}


def prepare(folder: Path, stage: str, rows: int) -> None:
    """What a stage is measured on."""
    PARTS[stage][0](folder, rows)


def timed(folder: Path, stage: str, rows: int) -> Row:
    """A stage in a process of its own, after its preparation in another."""
    watch = stopwatch()
    before = PARTS[stage][1](folder, rows)
    found = watch.read()
    return found | {"beyond_table_mb": round(found["peak_rss_mb"] - before)}


def measure(cache: Path, stage: str, rows: int, classes: int, width: int | None = None) -> Row:
    """Classes are `CLASSES`, or the four of a scorer."""
    with tempfile.TemporaryDirectory(dir=cache) as place:
        apart(prepare, Path(place), stage, rows)
        return apart(timed, Path(place), stage, rows)
