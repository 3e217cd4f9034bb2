"""What `homing corpus` writes, opened again with the readers that people use."""

from __future__ import annotations

import collections
import csv
import gc
import json
import math
import subprocess
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from homing.errors import DataError, RecipeError
from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.safe_names import safe_name
from homing.outputs.selection import keep_best, resample
from homing.pools.reading import read_pool
from homing.rates.rates_writer import ROW_GROUP
from homing.recipe.data import PoolSpec
from homing.recipe.reading import read_recipe
from small_run import draw_problem, small_recipe

CLASSES = ["bar", "disk", "ring"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    problem = draw_problem(tmp_path_factory.mktemp("pools"))
    (problem / "source" / "disk" / "003.png").write_bytes(b"no picture")
    recipe = small_recipe(problem, "training.steps=2", "data.on_bad_image=drop")
    return run(recipe, tmp_path_factory.mktemp("runs") / "run", quiet=True).folder


def sources_of(folder):
    return read_recipe(folder / "recipe.yaml").data.sources


def rates_of(folder):
    table = pq.read_table(folder / "rates.parquet").to_pandas()
    return table.set_index("sample_id")


def write(folder, output, **wanted):
    return write_corpus(folder, sources_of(folder), output, Wanted(**wanted))


def test_the_dataset_opens_with_images_labels_and_rates(finished, tmp_path):
    summary = write(finished, tmp_path / "corpus")
    assert (summary["num_pool"], summary["num_rows"], summary["unreadable"]) == (42, 41, 1)
    opened = datasets.load_dataset(str(tmp_path / "corpus"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(opened.features["image"], datasets.Image)
    assert opened.features["label"].names == CLASSES
    rates = rates_of(finished)
    for row in opened:
        assert row["image"].size == (24, 24)
        assert math.isclose(row["rate"], rates.rate[row["sample_id"]], rel_tol=1e-6)
        assert CLASSES[row["label"]] == rates.label[row["sample_id"]]
    first = opened.cast_column("image", datasets.Image(decode=False))[0]
    original = sources_of(finished)[0].path + "/" + first["sample_id"]
    with open(original, "rb") as file:
        assert first["image"]["bytes"] == file.read()


def test_a_corpus_is_a_pool_again(finished, tmp_path):
    for form in ("parquet", "folder"):
        write(finished, tmp_path / form, form=form)
        where = tmp_path / form / "data" if form == "parquet" else tmp_path / form
        pool = read_pool(PoolSpec(path=str(where), id_column="sample_id"))
        assert collections.Counter(pool.labels) == {"bar": 14, "disk": 13, "ring": 14}
        assert set(pool.ids) == set(rates_of(finished).index) - {"disk/003.png"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # datasets leaves metadata.csv open
@pytest.mark.parametrize("copy", [False, True])
def test_an_image_folder_holds_links_or_copies(finished, tmp_path, copy):
    write(finished, tmp_path / "corpus", form="folder", keep=0.5, copy=copy)
    pictures = sorted((tmp_path / "corpus").rglob("*.png"))
    assert len(pictures) == 7 + 6 + 7
    assert all(path.is_symlink() is not copy for path in pictures)
    opened = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "corpus"), split="train", cache_dir=str(tmp_path / "cache")
    )
    rates = rates_of(finished)
    assert len(opened) == 20
    assert all(math.isclose(row["rate"], rates.rate[row["sample_id"]], rel_tol=1e-6) for row in opened)
    del opened
    gc.collect()  # so that the warning comes here, where it is known


def test_keep_takes_the_highest_rates_of_each_class_or_of_all(finished, tmp_path):
    rates = rates_of(finished).drop("disk/003.png")
    for per_class in (True, False):
        output = tmp_path / str(per_class)
        write(finished, output, form="metadata", keep=0.3, per_class=per_class)
        kept = [row["sample_id"] for row in read_csv(output)]
        for _, part in rates.groupby("label") if per_class else [(None, rates)]:
            inside = part.index.isin(kept)
            assert inside.sum() == round(0.3 * len(part))
            assert part.rate[inside].min() >= part.rate[~inside].max()


def read_csv(folder):
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_metadata_beside_the_images_makes_them_a_pool_with_rates(finished, tmp_path):
    write(finished, tmp_path / "corpus", form="metadata")
    rows = read_csv(tmp_path / "corpus")
    assert {row["copies"] for row in rows} == {"1"}
    rates = rates_of(finished)
    assert all(math.isclose(float(row["rate"]), rates.rate[row["file_name"]], rel_tol=1e-6) for row in rows)
    source = tmp_path / "pool"
    source.symlink_to(sources_of(finished)[0].path)
    assert all((source / row["file_name"]).exists() for row in rows)


def test_drawn_rows_come_as_often_as_their_rates_say(finished, tmp_path):
    summary = write(finished, tmp_path / "table", form="metadata", draw=200)
    assert summary["num_rows"] == 200
    rates = rates_of(finished).drop("disk/003.png").rate
    copies = {row["sample_id"]: int(row["copies"]) for row in read_csv(tmp_path / "table")}
    for sample_id, rate in rates.items():
        assert abs(copies.get(sample_id, 0) - 200 * rate / rates.sum()) < 1
    write(finished, tmp_path / "dataset", draw=200)
    opened = datasets.load_dataset(str(tmp_path / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert collections.Counter(opened["sample_id"]) == copies
    assert max(opened["copy"]) == max(copies.values()) - 1


def test_column_only_is_ids_and_rates_of_every_sample(finished, tmp_path):
    summary = write(finished, tmp_path / "corpus", column_only=True)
    table = pq.read_table(tmp_path / "corpus" / "rates.parquet")
    assert table.column_names == ["sample_id", "rate"]
    assert summary["num_rows"] == table.num_rows == 42
    assert dict(zip(*table.to_pydict().values(), strict=True)) == rates_of(finished).rate.to_dict()


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"keep": 0.3, "draw": 5}, "exclude each other"),
        ({"keep": 0.3, "column_only": True}, "exclude each other"),
        ({"keep": 0.0}, "above 0"),
        ({"keep": 1.5}, "up to 1"),
        ({"keep": math.nan}, "above 0"),
        ({"draw": 0}, "at least 1"),
        ({"form": "zip"}, "metadata"),
        ({"copy": True}, "--format folder"),
        ({"seed": 3}, "--seed is about the rows of --resample"),
        ({"per_class": False}, "--no-per-class is about the share of --keep"),
        ({"form": "lance", "column_only": True}, "--format lance and --column-only exclude each other"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(finished, tmp_path, wanted, told):
    with pytest.raises(RecipeError, match=told):
        write(finished, tmp_path / "corpus", **wanted)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_never_written_into(finished, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(RecipeError, match="new folder"):
            write(finished, tmp_path / name)
    with pytest.raises(RecipeError, match="lies in the pool"):
        write(finished, type(finished)(sources_of(finished)[0].path) / "corpus")
    write(finished, tmp_path / "empty", column_only=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file", "full", "mine.txt", "rates.parquet"]


def test_an_image_that_is_gone_leaves_nothing_behind(finished, tmp_path):
    source = type(finished)(sources_of(finished)[0].path)
    moved = (source / "ring" / "013.png").rename(tmp_path / "kept.png")
    try:
        for form in ("parquet", "folder"):
            with pytest.raises(DataError, match=r"ring/013\.png.*--column-only"):
                write(finished, tmp_path / "corpus", form=form)
        assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]
    finally:
        moved.rename(source / "ring" / "013.png")


def test_a_damaged_or_unfinished_run_is_told(finished, tmp_path):
    for name in ("recipe.yaml", "results.json"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    sources = sources_of(finished)
    with pytest.raises(DataError, match=r"rates\.parquet: no such file, though this run is complete"):
        write_corpus(tmp_path, sources, tmp_path / "corpus", Wanted())
    (tmp_path / "rates.parquet").write_bytes((finished / "rates.parquet").read_bytes()[:-100])
    with pytest.raises(DataError, match="run the recipe again"):
        write_corpus(tmp_path, sources, tmp_path / "corpus", Wanted())
    assert not (tmp_path / "corpus").exists()


def run_folder(folder, names, rates, source):
    """A finished run of one pool, as far as a corpus looks at it."""
    folder.mkdir()
    labels = [name.rpartition("/")[0] for name in names]
    columns = {
        "sample_id": names,
        "source": ["pool"] * len(names),
        "label": labels,
        "rate": pa.array(rates, pa.float32()),
    }
    pq.write_table(pa.table(columns), folder / "rates.parquet", row_group_size=ROW_GROUP)
    (folder / "results.json").write_text(json.dumps({"dropped": []}))
    data = {"source": {"path": str(source), "name": "pool"}, "target": {"path": str(source)}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": data, "training": {"steps": 1}}))
    return folder


def test_names_that_a_spreadsheet_or_a_file_system_would_misread(tmp_path):
    names = ["=SUM(A1)/+1.png", "@a b/-2.png", "con/.3.png", "a:b/x.png", "a_b/x.png", "a_b/ü.png"]
    for name in names:
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pool" / name)
    folder = run_folder(tmp_path / "run", names, [1.0] * len(names), tmp_path / "pool")
    write(folder, tmp_path / "table", form="metadata")
    for row, name in zip(read_csv(tmp_path / "table"), names, strict=True):
        assert not any(str(cell).startswith(("=", "+", "-", "@")) for cell in row.values())
        assert (tmp_path / "pool" / row["file_name"]).samefile(tmp_path / "pool" / name)
    write(folder, tmp_path / "images", form="folder")
    rows = read_csv(tmp_path / "images")
    for row, name in zip(rows, names, strict=True):
        assert (tmp_path / "images" / row["file_name"]).samefile(tmp_path / "pool" / name)
    classes = {row["file_name"].removeprefix("./").partition("/")[0] for row in rows}
    assert len(classes) == 5
    assert not classes & {"con", "a:b", "=SUM(A1)"}


@pytest.mark.parametrize("form", ["folder", "metadata"])
def test_what_was_made_safe_for_a_spreadsheet_is_read_back_as_it_was(tmp_path, form):
    names = ["+/1.png", "-/=2.png", "=/'3.png", "'=/4.png", "''-/5.png", '"a,b"/6\n.png']
    for name in names:
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pool" / name)
    folder = run_folder(tmp_path / "run", names, [1.0] * len(names), tmp_path / "pool")
    write(folder, tmp_path / "corpus", form=form)
    where = tmp_path / "corpus"
    if form == "metadata":
        where = tmp_path / "pool"
        (tmp_path / "corpus" / "metadata.csv").rename(where / "metadata.csv")
    pool = read_pool(PoolSpec(path=str(where), id_column="sample_id"))
    labels = dict(zip(pool.ids, pool.labels, strict=True))
    assert labels == {name: name.rpartition("/")[0] for name in names}


@given(st.text(min_size=1), st.text(min_size=1))
def test_safe_names_stay_inside_and_apart(one, other):
    name = safe_name(one)
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>|\0')
    assert not name.startswith(".")
    assert len(name.encode()) < 256
    assert (name == safe_name(other)) == (one == other)


@given(st.integers(1, 200), st.floats(0.01, 1), st.integers(0, 99))
def test_selections_have_the_promised_sizes(count, share, seed):
    generator = np.random.default_rng(seed)
    rates = generator.choice([0.0, 0.5, 1.0, 4.0], count).astype(np.float32)
    rates[0] = 1
    classes = generator.integers(0, 3, count).astype(np.int32)
    usable = generator.random(count) < 0.9
    usable[0] = True
    kept = keep_best(rates, classes, usable, share)
    assert not kept[~usable].any()
    for name in np.unique(classes[usable]):
        inside = usable & (classes == name)
        assert kept[inside].sum() == max(1, round(share * int(inside.sum())))
        if (inside & (kept == 0)).any():
            assert rates[inside & (kept == 1)].min() >= rates[inside & (kept == 0)].max()
    drawn = resample(rates, usable, 37, seed)
    assert drawn.sum() == 37
    assert not drawn[~usable | (rates == 0)].any()


def test_equal_rates_are_not_kept_by_their_place_in_the_pool():
    kept = keep_best(np.ones(1_000, np.float32), None, np.ones(1_000, np.bool_), 0.5)
    assert 200 < kept[:500].sum() < 300


MEASURE = """
import sys
from pathlib import Path
from homing.memory import peak_rss_mb
from homing.outputs.corpus import Wanted, write_corpus
from homing.recipe.reading import read_recipe
folder, output, how = map(Path, sys.argv[1:])
wanted = Wanted(column_only=True) if how.name == "column" else Wanted(keep=0.3, form="metadata")
write_corpus(folder, read_recipe(folder / "recipe.yaml").data.sources, output, wanted)
print(peak_rss_mb(), "torch" in sys.modules)
"""


def test_memory_stays_flat_for_a_million_rows(tmp_path):
    (tmp_path / "pool").mkdir()
    peaks = {}
    for count in (100_000, 1_000_000):
        names = [f"{CLASSES[row % 3]}/photos-of-everyone/{row:09d}.jpg" for row in range(count)]
        rates = np.random.default_rng(0).random(count, np.float32)
        folder = run_folder(tmp_path / str(count), names, rates, tmp_path / "pool")
        for how in ("column", "keep"):
            command = [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / f"{how}-{count}"), how]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peak, has_torch = done.stdout.split()
            assert has_torch == "False"
            peaks[how, count] = float(peak)
    for how, bytes_a_row in (("column", 10), ("keep", 50)):  # a few numbers a row; an id alone takes more than 80
        assert peaks[how, 1_000_000] - peaks[how, 100_000] < 0.9 * bytes_a_row, peaks


def test_the_command_prints_one_json_object_and_needs_no_torch(tmp_path):
    (tmp_path / "pool" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pool" / "cat" / "1.png")
    run_folder(tmp_path / "run", ["cat/1.png"], [1.0], tmp_path / "pool")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('torch was imported')")
    command = [sys.executable, "-m", "homing", "corpus", "run", "--format", "metadata"]

    def corpus(*arguments):
        return subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = corpus("--output", "corpus", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == {"cat": 1}
    for code, arguments in ((2, ("--output", "corpus")), (2, ("--output", "new", "--keep", "2")), (0, ("--help",))):
        done = corpus(*arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False)
        assert (done.stdout == "") is (code != 0)
    (tmp_path / "run" / "rates.parquet").unlink()
    assert corpus("--output", "new").returncode == 3
    assert not (tmp_path / "new").exists()
