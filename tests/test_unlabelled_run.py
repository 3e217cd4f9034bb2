"""Unlabelled images through a whole run: trained on under guesses, never by a baseline, and no picture of the test."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from digit_pools import save_digits
from homing.errors import CheckpointError, DataError
from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.table import summary
from homing.quickstart import handwritten, printed
from homing.rates.learned import guesses
from homing.recipe.reading import parse_recipe, read_recipe
from small_run import draw_folder, draw_problem, small_recipe

COLUMNS = ["sample_id", "source", "guess", "probability", "match", "rate", "visits"]
FOREIGN = 6


def draw_unlabelled(folder):
    """`unlabelled` beside the pools of `draw_problem`: eight of each shape under one folder, a quarter foreign."""
    draw_problem(folder)
    draw_folder(folder / "unlabelled" / "inbox", 8, seed=5, share_dark=0.75)
    return folder


def recipe_over(folder, *overrides):
    return small_recipe(folder, f"data.unlabelled.path={folder / 'unlabelled'}", *overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run beside its pools; one unlabelled image is of the test, one of the source, one has a formula for a name."""
    folder = draw_unlabelled(tmp_path_factory.mktemp("unlabelled"))
    shutil.copy(folder / "test/bar/000.png", folder / "unlabelled/inbox/tested.png")
    shutil.copy(folder / "source/disk/000.png", folder / "unlabelled/rated.png")
    (folder / "unlabelled/inbox/ring/000.png").rename(folder / "unlabelled/=ring.png")
    return run(recipe_over(folder, "evaluation.baselines=[pooled_oversampled]"), folder / "run", quiet=True)


def table_of(folder, name="unlabelled"):
    return pq.read_table(folder / f"{name}.parquet").to_pandas()


def test_each_image_has_a_guess_a_rate_and_visits_and_the_sources_table_is_as_ever(finished):
    table, rates = table_of(finished.folder), table_of(finished.folder, "rates")
    assert list(table) == COLUMNS
    assert len(table) == 24
    assert set(table.source) == {"unlabelled"}
    assert table[["probability", "match"]].stack().between(0, 1).all()
    assert table.rate.between(0, finished.results["rates"]["phi"]["target_weight"]).all()
    assert table.visits.sum() > 0
    assert (table.visits[table.rate == 0] == 0).all()
    shapes = table.sample_id.str.extract(r"(bar|disk|ring)")[0]
    assert (table.guess.astype(str) == shapes).mean() > 0.8
    assert len(rates) == finished.results["data"]["source"]["num_samples"] == 42
    assert not set(table.sample_id) & set(rates.sample_id)
    rows = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"unlabelled_loss", "unlabelled_accuracy"} <= set(rows[0])
    assert {row["method"] for row in rows if "unlabelled_loss" in row} == {"hierarchical"}


def test_pictures_that_are_there_already_are_left_out_and_told(finished):
    assert not set(table_of(finished.folder).sample_id) & {"inbox/tested.png", "rated.png"}
    assert finished.results["unlabelled"]["left_out"] == {"test": 1, "source": 1}
    (told,) = [text for text in finished.results["warnings"] if "left out" in text]
    assert "1 are in the test too, 1 are in the source too" in told
    assert finished.results["dropped"] == []


def test_what_to_label_next_is_told_and_safe_in_a_spreadsheet(finished):
    with (finished.folder / "labels_wanted.csv").open(newline="", encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    assert list(wanted[0]) == ["sample_id", "guess", "probability", "match", "score"]
    assert len(wanted) == 20
    known = {name.replace("=ring", "'=ring") for name in table_of(finished.folder).sample_id}
    assert {row["sample_id"] for row in wanted} <= known
    assert "=ring.png" not in {row["sample_id"] for row in wanted}
    listed = finished.results["unlabelled"]["wanted"]
    assert [float(row["score"]) for row in wanted] == [row["score"] for row in listed]
    assert sum(finished.results["unlabelled"]["confidence"]) == 24
    assert f"label next: {finished.folder / 'labels_wanted.csv'}" in summary(finished.folder, finished.results)
    page = (finished.folder / "report.html").read_text()
    assert "Label these next" in page
    assert listed[0]["sample_id"] in page
    visits = table_of(finished.folder).visits.sum()
    card = (finished.folder / "model/README.md").read_text()
    assert f"unlabelled images counted as well, under guessed labels, and were trained on {visits} times" in card


def test_baselines_are_what_they_are_without_unlabelled_images(finished, tmp_path):
    baseline = small_recipe(finished.folder.parent, "rates.method=pooled_oversampled")
    alone = load_file(run(baseline, tmp_path / "run", quiet=True).folder / "predictions.safetensors")
    beside = load_file(finished.folder / "predictions.safetensors")
    assert torch.equal(alone["pooled_oversampled"], beside["pooled_oversampled"])
    gradients = finished.results["cost"]["method_gradients"]
    assert gradients["hierarchical"] == gradients["pooled_oversampled"]


def test_a_run_that_was_cut_off_goes_on_bit_for_bit(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    for name in ("results.json", "unlabelled.parquet", "labels_wanted.csv", "rates.parquet"):
        (folder / name).unlink()
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-000012")
    run(read_recipe(folder / "recipe.yaml"), folder, resume=True, quiet=True)
    weights = [load_file(place / "model" / "model.safetensors") for place in (finished.folder, folder)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    for name in ("unlabelled.parquet", "labels_wanted.csv", "rates.parquet"):
        assert (folder / name).read_bytes() == (finished.folder / name).read_bytes()


def test_the_first_of_several_branches_guesses_for_the_others_and_the_same_again_after_a_cut(
    finished, tmp_path, monkeypatch
):
    for name in ("LEAST_RIGHT", "TRUST"):  # a network without weights is sure of nothing
        monkeypatch.setattr(guesses, name, 0.0)
    recipe = recipe_over(finished.folder.parent, "training.branches=2", "training.steps=6")
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows if "unlabelled_loss" in row} == {"hierarchical-branch-2"}
    table, before = table_of(folder), table_of(finished.folder)
    assert (table.match == before.match).all()
    assert (table.probability != before.probability).any()
    assert table.visits.sum() > 0
    assert (table.visits[table.rate == 0] == 0).all()
    files = [folder / "unlabelled.parquet", folder / "model" / "model.safetensors"]
    written = [path.read_bytes() for path in files]
    (folder / "results.json").unlink()
    run(recipe, folder, resume=True, quiet=True)
    assert [path.read_bytes() for path in files] == written


def test_a_corpus_is_of_the_source_alone(finished, tmp_path):
    recipe = read_recipe(finished.folder / "recipe.yaml")
    summary = write_corpus(finished.folder, recipe.data.sources, tmp_path / "corpus", Wanted())
    assert summary["num_pool"] == 42


def test_a_changed_pool_is_refused_and_taken_with_consent(finished, tmp_path):
    pools = tmp_path / "pools"
    shutil.copytree(finished.folder.parent, pools, ignore=shutil.ignore_patterns("run"))
    recipe = recipe_over(pools, "rates.residuals=true", "rates.apply=weight", "rates.observe_every=2")
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-000012")
    (pools / "unlabelled/inbox/bar/007.png").unlink()
    (pools / "unlabelled/inbox/bar/000.png").rename(pools / "unlabelled/zzz.png")
    with pytest.raises(CheckpointError, match=r"the unlabelled changed .*--resume --allow-change"):
        run(recipe, folder, resume=True, quiet=True)
    run(recipe, folder, resume=True, allow_change=True, quiet=True)
    table = table_of(folder)
    assert len(table) == 23
    assert "zzz.png" in set(table.sample_id)
    assert table_of(folder, "rates").target_alignment.notna().all()


def test_without_a_test_each_fold_is_trained_on_them_too(tmp_path):
    folder = draw_unlabelled(tmp_path)
    recipe = recipe_over(folder, "data.test=null", "evaluation.folds=2", "training.steps=4", "model.trainable=head")
    results = run(recipe, folder / "run", quiet=True).results
    assert results["headline"] == "cross_validated"
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows if row.get("unlabelled_loss")} == {
        "hierarchical",
        "hierarchical-fold-1",
        "hierarchical-fold-2",
    }


def test_rates_without_training_guess_and_say_what_to_label(tmp_path):
    folder = draw_unlabelled(tmp_path)
    (folder / "unlabelled/broken.png").write_bytes(b"no picture")
    recipe = recipe_over(folder, "training.epochs=0")
    with pytest.raises(DataError, match=r"unlabelled broken.png: not a readable image"):
        run(recipe, folder / "run", quiet=True)
    recipe = recipe_over(folder, "training.epochs=0", "data.on_bad_image=drop")
    results = run(recipe, folder / "run", quiet=True).results
    assert results["dropped"][0]["image"] == "unlabelled broken.png"
    table = table_of(folder / "run")
    assert (len(table), table.visits.sum()) == (24, 0)
    assert (folder / "run/labels_wanted.csv").exists()
    run(recipe, folder / "run", overwrite=True, quiet=True)  # all of it is known as the run's own


def test_a_pool_of_another_domain_counts_for_nothing_and_it_is_said(tmp_path):
    folder = draw_problem(tmp_path)
    draw_folder(folder / "unlabelled", 12, seed=5, share_dark=0)
    results = run(recipe_over(folder, "training.epochs=0"), folder / "run", quiet=True).results
    assert results["unlabelled"]["mass"] < 3
    assert results["unlabelled"]["match_share"] < 0.1


def test_the_card_of_a_model_that_saw_none_of_them_says_so(tmp_path):
    folder = draw_problem(tmp_path)
    draw_folder(folder / "unlabelled", 1, seed=5, share_dark=0)
    results = run(recipe_over(folder, "training.steps=1"), folder / "run", quiet=True).results
    assert results["unlabelled"]["visits"] == 0
    assert "None of 3 unlabelled images was trained on." in (folder / "run/model/README.md").read_text()


def test_one_pool_serves_several_targets(tmp_path):
    folder = draw_unlabelled(tmp_path)
    draw_folder(folder / "light", 3, seed=8, share_dark=0)
    tree = f"{{dark: {{path: {folder / 'target'}}}, light: {{path: {folder / 'light'}}}}}"
    recipe = recipe_over(folder, f"data.target={tree}", "data.test=null", "training.epochs=0")
    run(recipe, folder / "run", quiet=True)
    dark, light = (table_of(folder / "run" / name).set_index("sample_id").match for name in ("dark", "light"))
    assert dark.mean() > light.mean()


def test_handwritten_digits_among_printed_ones_are_guessed_and_told_from_them(tmp_path):
    generator = np.random.default_rng(0)
    scans, digits = handwritten()
    mine = [(scans[row], int(digits[row])) for row in generator.permutation(len(scans)) if digits[row] < 4]
    machine = [pair for pair in printed(1_000, generator) if pair[1] < 4]
    save_digits(tmp_path / "source", machine[:160])
    save_digits(tmp_path / "target", mine[:24])
    save_digits(tmp_path / "unlabelled" / "mine", mine[24:104])
    save_digits(tmp_path / "unlabelled" / "foreign", machine[160:210])
    tree = {
        "data": {role: {"path": str(tmp_path / role)} for role in ("source", "target", "unlabelled")},
        "model": {"backbone": "tf_efficientnet_lite0", "weights": "bundled", "image_size": 48},
        "training": {"epochs": 0, "workers": 0},
    }
    folder = run(parse_recipe(yaml.safe_dump(tree)), tmp_path / "run", quiet=True).folder
    table = table_of(folder)
    parts = table.sample_id.str.split("/")
    is_mine, right = parts.str[0] == "mine", parts.str[1] == table.guess.astype(str)
    assert right[is_mine].mean() > 0.7
    assert abs(table.probability[is_mine].mean() - right[is_mine].mean()) < 0.2
    assert table.match[is_mine].mean() > 0.6 > 0.1 > table.match[~is_mine].mean()
    assert table.rate[~is_mine].sum() < 0.1 * table.rate.sum()
