"""Corpora of runs that are less plain: sets of labels, several pools, absent classes, other labels, taken names."""

import csv
import json
from types import SimpleNamespace

import datasets
import lance
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from homing.cli.app import app
from homing.cli.corpora import pools_of
from homing.errors import RecipeError
from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.corpus_card import corpus_card
from homing.outputs.selection import MOST_DRAWN, resample, strata
from homing.pools import label_sets
from homing.pools.texts import Texts
from set_pools import draw_set_problem, set_recipe
from small_run import CLASSES, draw_folder, draw_problem, small_recipe

RATES_ALONE = ("training.steps=null", "training.epochs=0", "data.test=null")
FORMS = ("parquet", "webdataset", "lance", "folder", "metadata")


def write(folder, output, **wanted):
    sources, target = pools_of(folder)
    return write_corpus(folder, sources, output, Wanted(**wanted), target=target)


def rated(folder, rates, labels, *, dropped=(), phi=None, task="single_label", **columns):
    """A finished run, as far as tables look at it, over a pool of which nothing is there."""
    folder.mkdir()
    given = {"sample_id": [f"{row}.png" for row in range(len(rates))], "source": ["pool"] * len(rates)}
    given |= {"label": labels, "rate": pa.array(rates, pa.float32()), **columns}
    pq.write_table(pa.table(given), folder / "rates.parquet")
    results = {"dropped": [{"image": f"source {name}", "reason": "gone"} for name in dropped]}
    (folder / "results.json").write_text(json.dumps(results | {"rates": {"phi": phi or {}}}))
    data = {"source": {"path": "no-pool", "name": "pool"}, "target": {"path": "no-target"}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": data, "task": task, "training": {"steps": 1}}))
    return folder


# ---- sets of labels --------------------------------------------------------------------------------------------------


def test_a_share_of_sets_of_labels_is_taken_of_the_rarest_label_of_each(tmp_path):
    generator = np.random.default_rng(0)
    labels = [
        label_sets.as_text(f"c{place}" for place in np.flatnonzero(generator.random(12) < 0.4)) for _ in range(120)
    ]
    assert len(set(labels)) > 100
    folder = rated(tmp_path / "run", generator.random(120), labels, task="multi_label")
    summary = write(folder, tmp_path / "best.parquet", keep=0.1)
    assert 8 <= summary["num_rows"] <= 18
    kept = pandas.read_parquet(tmp_path / "best.parquet")
    assert {name for text in kept.label for name in json.loads(text)} == {f"c{place}" for place in range(12)}


def test_what_sets_are_divided_by_is_what_pools_are_divided_by():
    texts = ['["a", "b"]', '["b"]', "[]", '["a"]', '["b", "c"]', '["a", "b"]', '["b"]']
    every = sorted(set(texts))
    codes = np.array([every.index(text) for text in texts], np.int32)
    expected, names = label_sets.strata(SimpleNamespace(labels=Texts.encoded(codes, every), classes=every))
    found = strata(codes, every, np.ones(7, np.bool_))
    assert found.tolist() == expected.tolist()
    assert names == ["", "a", "b", "c"]
    # of rows that could not be read none counts: without both of a and b, b is no more often there than a
    some = strata(codes, every, np.array([0, 0, 1, 1, 1, 0, 0], np.bool_))
    assert some[codes == every.index('["a", "b"]')].tolist() == [1, 1]


def test_the_best_of_a_run_over_sets_of_labels_are_as_many_as_were_asked_for(tmp_path):
    recipe = set_recipe(draw_set_problem(tmp_path), "rates.method=uniform", "training.steps=1")
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    assert len(set(pandas.read_parquet(folder / "rates.parquet").label)) == 8
    summary = write(folder, tmp_path / "best.csv", keep=0.02)
    assert summary["num_rows"] == 4  # one of each kind: those of no label, and of three rarest labels


# ---- rows that were drawn --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def absent(tmp_path_factory):
    """A run whose target lacks a class, and one of whose images could not be read."""
    problem = draw_problem(tmp_path_factory.mktemp("absent"))
    for path in (problem / "target" / "ring").iterdir():
        path.unlink()
    (problem / "target" / "ring").rmdir()
    (problem / "source" / "disk" / "003.png").write_bytes(b"no picture")
    recipe = small_recipe(problem, "training.steps=2", "data.on_bad_image=drop", "data.test=null")
    folder = run(recipe, problem / "run", quiet=True).folder
    rates = pandas.read_parquet(folder / "rates.parquet")  # rates of a class that the target lacks may be less than 1
    rates.loc[rates.label == "ring", "rate"] *= np.float32(0.3)
    rates.to_parquet(folder / "rates.parquet")
    return folder


def test_drawn_rows_and_the_target_have_the_shares_that_they_are_trained_with(absent, tmp_path):
    weight = json.loads((absent / "results.json").read_text())["rates"]["phi"]["target_weight"]
    total = pandas.read_parquet(absent / "rates.parquet").rate.sum()
    assert total < 40
    write(absent, tmp_path / "corpus", draw=300, with_target=True, form="metadata")
    target = pandas.read_csv(tmp_path / "corpus" / "target" / "metadata.csv")
    np.testing.assert_allclose(target.rate, weight * 300 / total, rtol=1e-4)


def test_the_card_of_drawn_rows_without_the_target_says_its_weight_beside_them(absent, tmp_path):
    weight = json.loads((absent / "results.json").read_text())["rates"]["phi"]["target_weight"]
    total = pandas.read_parquet(absent / "rates.parquet").rate.sum()
    write(absent, tmp_path / "corpus", draw=300, form="metadata")
    said = f"each of which counts {weight * 300 / total:.3g} times"
    assert said in (tmp_path / "corpus" / "README.md").read_text()


@pytest.mark.parametrize("count", [MOST_DRAWN + 1, 2**31, 2**32 + 5, 99_999_999_999_999_999_999])
def test_more_rows_than_can_be_counted_are_refused(tmp_path, count):
    rated(tmp_path / "run", [1.0, 2.0], ["cat", "dog"])
    with pytest.raises(RecipeError, match=rf"--resample is {count:,}; .* at most 500,000,000"):
        write(tmp_path / "run", tmp_path / "drawn.csv", draw=count)
    command = ["corpus", str(tmp_path / "run"), "-o", str(tmp_path / "drawn.csv"), "--resample", str(count)]
    assert isinstance(CliRunner().invoke(app, command).exception, RecipeError)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@given(st.lists(st.floats(0.01, 9), min_size=1, max_size=9), st.integers(0, 9))
def test_as_many_rows_as_can_be_counted_are_counted_rightly(rates, seed):
    values = np.array(rates, np.float32)
    counts = resample(values, np.ones(len(values), np.bool_), MOST_DRAWN, seed)
    assert counts.sum(dtype=np.int64) == MOST_DRAWN
    expected = MOST_DRAWN * values.astype(np.float64) / values.sum(dtype=np.float64)
    assert (np.abs(counts - expected) < 1.001).all()


# ---- columns whose names are taken -----------------------------------------------------------------------------------

TAKEN = ("copies", "copy", "loss_weight", "label_index", "image", "file_name")


@pytest.mark.parametrize("wanted", [{}, {"draw": 5}, {"loss_weights": True}, {"keep": 0.5}])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_leaves_columns_out_that_are_called_as_its_own(tmp_path, suffix, wanted):
    columns = {name: ["x", "y", "z"] for name in (*TAKEN, "site")}
    folder = rated(tmp_path / "run", [1.0, 2.0, 0.5], ["cat", "dog", "dog"], **columns)
    write(folder, tmp_path / f"table.{suffix}", **wanted)
    found = {"parquet": pandas.read_parquet, "csv": pandas.read_csv}[suffix](tmp_path / f"table.{suffix}")
    own = ["copies"] if "draw" in wanted else ["loss_weight"] if "loss_weights" in wanted else []
    assert list(found.columns) == ["sample_id", "source", "label", "rate", "site", *own]
    assert all(pandas.api.types.is_numeric_dtype(found[name]) for name in own)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wanted", [{"draw": 20}, {"loss_weights": True}])
def test_a_corpus_leaves_columns_out_that_are_called_as_its_own(finished_run, tmp_path, form, wanted):
    for name in ("recipe.yaml", "results.json", ".homing"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_bytes((finished_run / name).read_bytes())
    rates = pandas.read_parquet(finished_run / "rates.parquet").assign(**dict.fromkeys(TAKEN, "x"), site="north")
    rates.to_parquet(tmp_path / "run" / "rates.parquet")
    write(tmp_path / "run", tmp_path / "corpus", form=form, with_target=True, **wanted)
    rows = rows_of(tmp_path, form)
    assert {row["site"] for row in rows} == {"north"}
    assert all("x" not in row.values() for row in rows)
    if "loss_weights" in wanted:
        assert {float(row["loss_weight"]) > 0 for row in rows} == {True}
    else:
        assert all("loss_weight" not in row for row in rows)


def rows_of(folder, form, part="train"):
    """Rows of one part of a corpus that lies beside its target; of images nothing."""
    corpus = folder / "corpus"
    if form in ("folder", "metadata"):
        with (corpus / part / "metadata.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if form == "lance":
        return lance.dataset(corpus / f"{part}.lance").to_table().drop_columns("image").to_pylist()
    found = datasets.load_dataset(str(corpus), split=part, cache_dir=str(folder / "cache"))
    if form == "webdataset":
        return list(found["json"])
    label = found.features["label"]
    return [row | {"label": label.int2str(row["label"])} for row in found.remove_columns("image")]


# ---- labels of another kind ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Runs over pools whose labels are of the three kinds that are not shared, and one whose labels are."""
    problem = draw_problem(tmp_path_factory.mktemp("kinds"))
    asked = {
        "other": ("data.source.labels=other", *RATES_ALONE),
        "none": ("data.source.labels=none", *RATES_ALONE),
        "unlabelled": ("data.target.labels=none", *RATES_ALONE),
        "uniform": ("rates.method=uniform", "training.target_weight=2", "training.steps=1"),
    }
    return {
        name: run(small_recipe(problem, *changes), problem / name, quiet=True).folder for name, changes in asked.items()
    }


def card_of(folder, output, **wanted):
    write(folder, output, form="metadata", **wanted)
    return (output / "README.md").read_text()


@pytest.mark.parametrize("kind", ["other", "none", "unlabelled"])
def test_a_card_does_not_say_that_rates_were_judged_where_nothing_was(kinds, tmp_path, kind):
    card = card_of(kinds[kind], tmp_path / "corpus")
    assert "judged on held-out folds" not in card
    assert "Nothing was judged" in card
    assert ("by its likeness alone" in card) is (kind == "none")
    assert ("`label_consistency`" in card) is (kind != "none")


def test_a_card_of_rates_that_were_judged_says_so(finished_run, tmp_path):
    card = card_of(finished_run, tmp_path / "corpus")
    assert "by its likeness and by the pool's labels, judged on held-out folds" in card
    assert "Nothing was judged" not in card


def test_a_card_of_rates_that_were_not_learned_names_the_method(kinds, tmp_path):
    card = card_of(kinds["uniform"], tmp_path / "corpus")
    assert "method `uniform`" in card
    assert "Learned" not in card
    assert "`target_likeness`" not in card


def test_a_card_adds_no_images_of_a_target_that_has_no_labels(kinds, tmp_path):
    assert "labelled images" not in card_of(kinds["unlabelled"], tmp_path / "corpus")
    assert "labelled images, each of which counts 3.16 times" in card_of(kinds["other"], tmp_path / "other")


def test_a_card_adds_no_images_that_count_nothing():
    results = {"rates": {"phi": {"target_weight": 0.0}}, "method": "source_only", "judged": []}
    card = corpus_card(results, Wanted(), np.ones(3, np.int32), None, 0.0, None, {}, has_labels=True, place="corpus")
    assert "0 times" not in card
    assert "labelled images" not in card


@pytest.mark.parametrize("form", FORMS)
def test_a_class_name_in_pools_of_other_classes_is_two_classes(kinds, tmp_path, form):
    write(kinds["other"], tmp_path / "corpus", form=form, with_target=True)
    parts = {part: {row["label"] for row in rows_of(tmp_path, form, part)} for part in ("train", "target")}
    assert parts == {"train": set(CLASSES), "target": {f"target-{name}" for name in CLASSES}}
    assert "`target-`" in (tmp_path / "corpus" / "README.md").read_text()
    if form == "webdataset":
        index = [{row["label_index"] for row in rows_of(tmp_path, form, part)} for part in ("train", "target")]
        assert index == [{0, 1, 2}, {3, 4, 5}]
    if form == "parquet":
        found = datasets.load_dataset(str(tmp_path / "corpus"), split="target", cache_dir=str(tmp_path / "cache"))
        assert found.features["label"].names == [*CLASSES, *(f"target-{name}" for name in CLASSES)]


def test_a_class_that_has_the_other_name_already_keeps_it(tmp_path):
    draw_folder(tmp_path / "source", 6, seed=1, share_dark=0.2)
    draw_folder(tmp_path / "target", 4, seed=2, share_dark=1)
    (tmp_path / "target" / "disk").rename(tmp_path / "target" / "target-bar")
    recipe = small_recipe(tmp_path, "data.source.labels=other", *RATES_ALONE)
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    write(folder, tmp_path / "corpus", with_target=True)
    labels = {row["sample_id"].partition("/")[0]: row["label"] for row in rows_of(tmp_path, "parquet", "target")}
    assert labels == {"bar": "target-target-bar", "target-bar": "target-bar", "ring": "target-ring"}


# ---- several pools ---------------------------------------------------------------------------------------------------


def test_metadata_of_several_pools_names_no_file(tmp_path):
    problem = draw_problem(tmp_path)
    draw_folder(tmp_path / "more", 6, seed=7, share_dark=0.2)
    pools = f"data.source=[{{path: {problem / 'source'}}}, {{path: {problem / 'more'}}}]"
    folder = run(small_recipe(problem, pools, *RATES_ALONE), tmp_path / "run", quiet=True).folder
    write(folder, tmp_path / "corpus", form="metadata", with_target=True)
    rows = rows_of(tmp_path, "metadata")
    assert len(rows) == 42 + 18
    assert {row["sample_id"].partition("/")[0] for row in rows} == {"source", "more"}
    assert not any("file_name" in row for row in rows)
    target = rows_of(tmp_path, "metadata", "target")
    assert all((problem / "target" / row["file_name"]).is_file() for row in target)
