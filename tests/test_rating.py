"""`homing rate`: rates of rows that bring their features along, in every form that people keep them in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from drawn_pools import encoded
from homing.cli.app import app
from homing.errors import DataError
from homing.outputs.ownership import is_ours
from homing.pools import table_parts, vectors
from homing.pools.tables import open_table
from homing.pools.vectors import open_vectors
from homing.rates import RateLearner
from homing.rates.learned.judge import FOLDS
from processes import called
from rated_tables import POOLS, rate, write_pools
from small_run import draw_problem


def rates_of(folder):
    return pq.read_table(folder / "out" / "rates.parquet").to_pandas()


@pytest.fixture(scope="module")
def learner():
    halves = {name: features.astype(np.float16).astype(np.float32) for name, (features, _) in POOLS.items()}
    return RateLearner().fit(halves["pool"], POOLS["pool"][1], halves["mine"], POOLS["mine"][1])


@pytest.mark.parametrize("kind", ["fixed", "list", "npy", "safetensors", "saved"])
def test_features_in_any_form_give_the_rates_of_the_learner(kind, tmp_path, learner):
    done = rate(write_pools(tmp_path / "data", kind), kind=kind)
    assert done.exit_code == 0, (done.output, done.exception)
    found = rates_of(tmp_path / "data")
    assert found.columns.tolist()[:8] == [
        *("sample_id", "source", "label", "rate", "target_likeness", "label_consistency", "target_alignment", "visits")
    ]
    assert found.sample_id.tolist() == [f"pool-{row}" for row in range(len(found))]
    assert found.label.tolist() == POOLS["pool"][1].tolist()
    np.testing.assert_allclose(found.rate, learner.rates_, rtol=1e-5)


def test_features_may_lie_beside_a_table_of_texts(tmp_path, learner):
    folder = write_pools(tmp_path / "data", "npy")
    for name in POOLS:
        pq.read_table(folder / f"{name}.parquet").to_pandas().to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.npy").rename(folder / f"{name}.NPY")
    words = ["rate", "--source", f"{folder}/pool.csv", "--target", f"{folder}/mine.csv", "--output", f"{folder}/out"]
    words += ["--features", f"{folder}/pool.NPY", "--target-features", f"{folder}/mine.NPY", "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    np.testing.assert_allclose(rates_of(folder).rate, learner.rates_, rtol=1e-5)


def test_a_target_of_few_rows_is_judged_on_as_many_folds_as_it_has_rows(tmp_path):
    folder = write_pools(tmp_path / "data")
    mine = pq.read_table(folder / "mine.parquet")
    pq.write_table(mine.slice(0, 4), folder / "mine.parquet")
    done = rate(folder, "--quiet")
    assert isinstance(done.exception, DataError)
    assert "set folds to at most 4" in str(done.exception)
    assert rate(folder, "--folds", 4, "--quiet").exit_code == 0
    said = " ".join(CliRunner().invoke(app, ["rate", "--help"]).stdout.split("--folds")[1].split())
    assert f"default: ({FOLDS})" in said


def test_it_leaves_results_a_report_and_its_mark(tmp_path):
    folder = write_pools(tmp_path / "data")
    done = rate(folder, "--json", "--seed", 3)
    printed = json.loads(done.stdout)
    results = json.loads((folder / "out" / "results.json").read_text())
    assert printed == {"folder": str(folder / "out"), **results}
    assert (results["headline"], results["target"], results["baselines"], results["seed"]) == ("none", None, {}, 3)
    assert results["data"]["source"]["num_samples"] == 600
    assert results["asked"]["features"] == "embedding"
    assert is_ours(folder / "out")
    assert {path.name for path in (folder / "out").iterdir()} == {
        *(".homing", "rates.parquet", "report.html", "results.json", "scorer")
    }
    refused = rate(folder)
    assert "already holds files" in str(refused.exception)
    assert rate(folder, "--overwrite").exit_code == 0
    inside = rate(folder, output="pool.parquet/out")
    assert inside.exception is not None


def test_texts_are_shown_escaped(tmp_path):
    folder = write_pools(tmp_path / "data", text=lambda row: f"<script>alert({row})</script> says {'much ' * 200}")
    assert rate(folder).exit_code == 0
    page = (folder / "out" / "report.html").read_text()
    assert "&lt;script&gt;alert(" in page
    assert page.count("<script") == 1
    assert "source samples" in page
    before = page.count("says much")
    (folder / "out" / "report.html").unlink()
    assert CliRunner().invoke(app, ["report", str(folder / "out")]).exit_code == 0
    assert (folder / "out" / "report.html").read_text().count("says much") == before > 0
    chosen = rate(folder, "--overwrite", "--text", "label")
    assert chosen.exit_code == 0
    assert "says much" not in (folder / "out" / "report.html").read_text()


def test_pictures_are_shown_where_rows_have_some(tmp_path):
    def picture(row):
        return {"bytes": encoded(Image.new("RGB", (8, 8), (row % 256, 0, 0))), "path": f"{row}.png"}

    folder = write_pools(tmp_path / "data", image=picture)
    assert rate(folder).exit_code == 0
    page = (folder / "out" / "report.html").read_text()
    assert page.count("data:image/webp") > 20
    assert "source images" in page


def test_rows_that_say_nothing_are_shown_by_their_ids(tmp_path):
    folder = write_pools(tmp_path / "data")
    rate(folder)
    page = (folder / "out" / "report.html").read_text()
    assert "could be found any more" not in page
    assert "pool-" in page


def test_a_large_column_is_read_in_blocks_and_gives_the_same_rates(tmp_path, monkeypatch, learner):
    folder = write_pools(tmp_path / "data")
    monkeypatch.setattr(vectors, "_HELD_BYTES", 0)
    monkeypatch.setattr(table_parts, "BLOCK_BYTES", 4_000)
    column = open_vectors(open_table(folder / "pool.parquet"), "embedding")
    assert isinstance(column, vectors.VectorColumn)
    features = POOLS["pool"][0].astype(np.float16)
    rows = np.random.default_rng(0).permutation(600)[:50]
    np.testing.assert_array_equal(column[rows], features[rows])
    np.testing.assert_array_equal(column[140:160], features[140:160])
    assert rate(folder).exit_code == 0
    np.testing.assert_allclose(rates_of(folder).rate, learner.rates_, rtol=1e-5)


def test_no_library_of_images_is_imported(tmp_path):
    folder = write_pools(tmp_path / "data")
    script = (
        "import sys; from pathlib import Path; from homing.rating import Asked, rate_rows\n"
        "from homing.progress import Progress\n"
        f"rate_rows(Asked('{folder}/pool.parquet', '{folder}/mine.parquet', 'embedding'), Path('{folder}/out'),"
        " Progress(quiet=True))\n"
        "assert not {'timm', 'torchvision', 'accelerate', 'datasets', 'transformers'} & set(sys.modules), sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def change(folder, name, function):
    path = folder / f"{name}.parquet"
    pq.write_table(function(pq.read_table(path)), path)


def with_column(name, values):
    return lambda table: table.set_column(table.column_names.index(name), name, values(table[name].to_pylist()))


def embedding(function):
    def values(rows):
        return pa.array([function(number, row) for number, row in enumerate(rows)], pa.list_(pa.float32()))

    return with_column("embedding", values)


BAD = {
    "another width": (
        ("mine", embedding(lambda number, row: row[1:])),
        "Source features have 24 columns, target features 23: take both from one model",
    ),
    "one row of another width": (
        ("pool", embedding(lambda number, row: row[1:] if number == 7 else row)),
        "row 7 has 23 numbers, and others have 24; take the features of all rows from one model, or leave",
    ),
    "a row without": (
        ("pool", embedding(lambda number, row: None if number == 7 else row)),
        "row 7 has no features, and others have 24",
    ),
    "a missing number": (
        ("pool", embedding(lambda number, row: [None, *row[1:]] if number == 7 else row)),
        "features of 1 source row are not finite (first: row 7): look at those samples",
    ),
    "infinite": (
        ("mine", embedding(lambda number, row: [float("inf"), *row[1:]] if number == 3 else row)),
        "features of 1 target row are not finite (first: row 3)",
    ),
    "texts": (
        ("pool", with_column("embedding", lambda rows: pa.array([["a"]] * len(rows)))),
        "the column 'embedding' is of the type list<element: string>; lists of numbers are wanted",
    ),
    "double ids": (
        ("pool", with_column("id", lambda ids: pa.array([ids[0], *ids[:-1]]))),
        "id 'pool-0' occurs more than once in column id; ids must be unique",
    ),
    "a missing id": (
        ("pool", with_column("id", lambda ids: pa.array([None, *ids[1:]]))),
        "row 0 has no id; fill it in or leave the row out",
    ),
    "a missing label": (
        ("pool", with_column("label", lambda labels: pa.array([None, *labels[1:]]))),
        "pool-0 has no label; fill it in or leave the row out",
    ),
    "other classes": (
        ("mine", with_column("label", lambda labels: pa.array(["elk"] * len(labels)))),
        "none of the target's classes ('elk') is among the source's classes ('ant', 'bee', 'cat', 'dog')",
    ),
    "a class in two spellings": (
        ("mine", with_column("label", lambda labels: pa.array(["Ant", *labels[1:]]))),
        "a name that can be told from the other; tables have no rename: write the classes of both alike",
    ),
    "lists of labels": (
        ("pool", with_column("label", lambda labels: pa.array([[str(label), "fly"] for label in labels]))),
        "a label is a list",
    ),
    "no target": (("mine", lambda table: table.slice(0, 0)), "mine.parquet: has no rows"),
    "a small target": (("mine", lambda table: table.slice(0, 3)), "3 labelled images, fewer than the 5 folds"),
    "no such column": (
        ("pool", lambda table: table.rename_columns(["id", "label", "vector"])),
        "there is no column 'embedding'; columns of lists: 'vector'; name one of them, or a file",
    ),
    "no labels": (
        ("pool", lambda table: table.drop_columns(["label"])),
        "there is no column 'label'; columns: 'id', 'embedding'; name the one of labels with --label (",
    ),
}


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("lists") / "data", "list")


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_rated_is_refused_in_one_sentence(kind, lists, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in POOLS:
        (folder / f"{name}.parquet").write_bytes((lists / f"{name}.parquet").read_bytes())
    (name, function), message = BAD[kind]
    change(folder, name, function)
    refused = rate(folder)
    assert isinstance(refused.exception, DataError), refused.exception
    assert message in str(refused.exception)
    assert not (folder / "out").exists()


def test_a_single_class_in_both_pools_is_refused(lists, tmp_path):
    for name in POOLS:
        (tmp_path / f"{name}.parquet").write_bytes((lists / f"{name}.parquet").read_bytes())
        change(tmp_path, name, with_column("label", lambda labels: pa.array(["ant"] * len(labels))))
    assert "has the single class 'ant'; there is nothing to tell apart" in str(rate(tmp_path).exception)


def test_files_of_features_that_do_not_fit_are_refused(tmp_path):
    folder = write_pools(tmp_path / "data", "npy")
    table = open_table(folder / "pool.parquet")
    with pytest.raises(DataError, match=r"mine\.npy: has 24 rows, and .*pool\.parquet has 600; give features of each"):
        open_vectors(table, str(folder / "mine.npy"))
    np.save(folder / "pool.npy", np.ones((600, 2, 2)))
    with pytest.raises(DataError, match=r"holds float64 of shape \(600, 2, 2\); numbers \[rows, columns\] are wanted"):
        open_vectors(table, str(folder / "pool.npy"))
    with pytest.raises(DataError, match=r"none\.npy: cannot be read as features \(No such file"):
        open_vectors(table, str(folder / "none.npy"))
    save_file({"a": np.ones((600, 2)), "b": np.ones((600, 2))}, folder / "two.safetensors")
    with pytest.raises(DataError, match=r"holds the tensors 'a', 'b'; a single one of shape \[rows, columns\]"):
        open_vectors(table, str(folder / "two.safetensors"))
    for damaged in (b"", b"\xff" * 8, (2).to_bytes(8, "little") + b"[]", (9).to_bytes(8, "little") + b'{"a": {}}'):
        (folder / "bad.safetensors").write_bytes(damaged)
        with pytest.raises(DataError, match=r"bad\.safetensors: "):
            open_vectors(table, str(folder / "bad.safetensors"))


def test_a_file_without_anything_in_it_is_told(tmp_path):
    folder = write_pools(tmp_path / "data", "npy")
    (folder / "pool.npy").write_bytes(b"")
    words = "rate --source pool.parquet --target mine.parquet --features pool.npy --output out"
    done = called(*words.split(), cwd=folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert "pool.npy: cannot be read as features" in done.stderr


def test_a_file_of_a_table_with_other_features_is_named(tmp_path):
    folder = write_pools(tmp_path / "data", "list")
    table = pq.read_table(folder / "pool.parquet")
    parts = tmp_path / "parts"
    parts.mkdir()
    pq.write_table(table, parts / "0.parquet")
    texts = with_column("embedding", lambda rows: pa.array(["none"] * len(rows)))
    pq.write_table(texts(table), parts / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: the column 'embedding' is of the type string; lists of numbers"):
        open_vectors(open_table(parts), "embedding")


def test_lists_of_no_length_are_no_features(tmp_path):
    table = pa.table({"id": ["a", "b"], "embedding": pa.array([[], []], pa.list_(pa.float32(), 0))})
    pq.write_table(table, tmp_path / "pool.parquet")
    with pytest.raises(DataError, match=r"the column 'embedding' is of the type .*\[0\]; lists of numbers are wanted"):
        open_vectors(open_table(tmp_path / "pool.parquet"), "embedding")


def test_a_folder_that_is_no_table_is_told(tmp_path):
    folder = write_pools(tmp_path / "data")
    (tmp_path / "images" / "ant").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "ant" / "0.png")
    refused = rate(folder, "--source", tmp_path / "images")
    assert "images: holds no parquet files, and is no saved dataset either" in str(refused.exception)


def test_whole_numbers_of_any_size_are_features(tmp_path):
    folder = write_pools(tmp_path / "data", "list")
    for name in POOLS:
        large = with_column("embedding", lambda rows: pa.array([[int(x * 2**40) for x in row] for row in rows]))
        change(folder, name, large)
    assert rate(folder, kind="list").exit_code == 0


def test_features_are_no_pickles(tmp_path):
    class Canary:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    folder = write_pools(tmp_path / "data", "npy")
    np.save(folder / "pool.npy", np.array([[Canary()]], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"pool\.npy: cannot be read as features"):
        open_vectors(open_table(folder / "pool.parquet"), str(folder / "pool.npy"))
    assert not (tmp_path / "canary").exists()


def test_a_recipe_stops_after_its_rates(tmp_path):
    problem = draw_problem(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{source: {{path: {problem}/source}}, target: {{path: {problem}/target}}}}\n"
        "model: {backbone: test_resnet, weights: none, image_size: 32}\n"
        "rates: {folds: 2}\ntraining: {steps: 9, workers: 0}\noutput: {cache: none}\n"
        "evaluation: {baselines: [pooled_oversampled]}\n"
    )
    done = CliRunner().invoke(app, ["rate", str(recipe), "seed=4", "--output", str(tmp_path / "run"), "--json", "-q"])
    assert done.exit_code == 0, (done.output, done.exception)
    results = json.loads(done.stdout)
    assert (results["headline"], results["seed"], results["data"]["source"]["num_samples"]) == ("none", 4, 42)
    assert (tmp_path / "run" / "rates.parquet").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a RECIPE, or --source, --target, --features and --output"),
        (["--target", "a"], "give a RECIPE, or --source"),
        (["--source", "a"], "--source goes with --target, --features and --output"),
        (["reweight", "--source", "a"], "a recipe names its pools itself"),
        (["reweight", "--features", "a"], "give a RECIPE, or --source"),
        (["reweight", "--label", "a"], "--label goes with --source; a recipe says it itself"),
        (["reweight", "--target-features", "a"], "--target-features goes with --source"),
        (["reweight", "--seed", "4"], "--seed goes with --source; a recipe says it itself (key.path=value overrides"),
        (["--source", "", "--target", "b", "--features", "c", "--output", "d"], "--source goes with --target"),
        (["--source", "a", "--target", "", "--features", "c", "--output", "d"], "--source goes with --target"),
        (["--source", "a", "--target", "b", "--features", "c", "--output", "d", "--resume"], "learned in one go"),
    ],
)
def test_what_does_not_go_together_is_told(words, message):
    refused = CliRunner().invoke(app, ["rate", *words])
    assert message in str(refused.exception)
    assert refused.exception.exit_code == 2
