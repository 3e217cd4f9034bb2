"""A run over images of several classes, and what is made of it: two processes, resume, predictions, exports, report."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score

from homing.compare import as_text, predictions_of, side_by_side
from homing.errors import DataError, RecipeError
from homing.flow import run
from homing.models.saved import open_model
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.export import export_model
from homing.outputs.facts import Asked
from homing.outputs.model_card import model_card
from homing.outputs.table import score_lines, summary
from homing.pools.label_sets import classes_of
from homing.pools.reading import read_pool
from homing.predict import evaluate, predict
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from homing.recipe.reading import recipe_of_run
from homing.training.loop import FineTuning
from homing.validate import validate_data
from processes import together
from set_pools import draw_set_problem, set_recipe
from small_run import CLASSES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_set_problem(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def finished(folder):
    return run(set_recipe(folder, "evaluation.baselines=[pooled_oversampled]"), folder / "run", quiet=True)


def test_figures_are_of_sets_and_hold_against_the_predictions(finished):
    own, saved = finished.results["target"], predictions_of(finished.folder)
    labels, logits = saved["labels"], saved["hierarchical"]
    assert labels.dtype == torch.bool
    assert labels.shape == logits.shape == (24, 3)
    wanted = average_precision_score(labels, logits, average="macro")
    assert own["mean_average_precision"] == pytest.approx(wanted, abs=1e-6)
    assert set(finished.results["per_class"]) == set(CLASSES)
    assert finished.results["confusion"] is None
    baseline = finished.results["baselines"]["pooled_oversampled"]
    gain, other = baseline["gains"]["mean_average_precision"], baseline["mean_average_precision"]
    assert gain["mean"] == pytest.approx(own["mean_average_precision"] - other)
    assert finished.results["metric"] == "mean_average_precision"
    assert "several classes" in finished.results["calibration"]["reason"]
    assert "mean average precision" in summary(finished.folder, finished.results)
    assert "mean average precision" in repr(finished)


def test_rates_say_the_set_of_each_row(finished):
    rates = pq.read_table(finished.folder / "rates.parquet").to_pydict()
    shown = [json.loads(text) for text in rates["label"]]
    assert len(shown) == 60
    assert [] in shown
    assert {name for names in shown for name in names} == set(CLASSES)
    assert np.isfinite(rates["label_consistency"]).all()


def test_a_run_that_is_cut_goes_on_bit_for_bit(folder, tmp_path, monkeypatch):
    recipe = set_recipe(folder, "rates.method=uniform", "training.target_weight=3", "training.steps=20")
    whole = run(recipe, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patched:
        patched.setattr(FineTuning, "end_epoch", _cut)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "cut", quiet=True)
    assert list((tmp_path / "cut" / "checkpoints").glob("step-*"))
    again = run(recipe, tmp_path / "cut", resume=True, quiet=True)
    assert again.results["target"] == whole.results["target"]
    ours, theirs = (load_file(one.folder / "model" / "model.safetensors") for one in (whole, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _cut(tuning):
    raise KeyboardInterrupt


def test_predictions_have_a_column_a_class_and_name_those_above_a_half(finished, folder):
    pictures = sorted((folder / "test").glob("*.png"))[:5]
    file, lines = io.StringIO(), io.StringIO()
    predict(finished.folder, pictures, file, "csv", Progress(quiet=True))
    predict(finished.folder, pictures, lines, "jsonl", Progress(quiet=True))
    head, *rows = file.getvalue().splitlines()
    assert head == "image,predicted,probability,error,p(bar),p(disk),p(ring)"
    for row, line in zip(rows, lines.getvalue().splitlines(), strict=True):
        found, cells = json.loads(line), row.split(",")
        shares = found["probabilities"]
        assert found["predicted"] == [name for name in CLASSES if shares[name] > 0.5]
        assert cells[1] == "|".join(found["predicted"])
        assert found["probability"] == pytest.approx(np.prod([max(p, 1 - p) for p in shares.values()]), rel=1e-4)
        assert [float(cell) for cell in cells[4:]] == pytest.approx(list(shares.values()), rel=1e-4)


def test_evaluation_comes_to_the_runs_own_figures(finished, folder):
    found = evaluate(finished.folder, PoolSpec(path=str(folder / "test")), Progress(quiet=True))
    for name in ("mean_average_precision", "micro_f1", "nll"):
        assert found[name] == pytest.approx(finished.results["target"][name], abs=1e-5)
    columns = PoolSpec(path=str(folder / "target"), label_columns=CLASSES)
    other = evaluate(finished.folder, columns, Progress(quiet=True), method="pooled_oversampled")
    assert other["num_test"] == 20
    assert score_lines(other)[1].startswith("mean average precision  ")


def test_exports_say_what_the_outputs_are(finished, folder, tmp_path):
    export_model(finished.folder, "timm", tmp_path / "timm")
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert open_model(tmp_path / "timm").is_multi_label
    card = (tmp_path / "timm" / "README.md").read_text()
    assert _first(tmp_path / "timm", folder) == _first(finished.folder, folder)
    assert "of which an image may have any number" in card
    assert "sigmoid" in card
    assert "mean average precision" in card
    assert json.loads((tmp_path / "timm" / "preprocessing.json").read_text())["task"] == "multi_label"
    asked = Asked.of(recipe_of_run(finished.folder))
    assert "if logit > 0" in model_card(finished.results, asked, form="onnx")


def _first(model, folder):
    """What a model says of one picture, out of a table."""
    file = io.BytesIO()
    predict(model, [next((folder / "test").glob("*.png"))], file, "parquet", Progress(quiet=True))
    return pq.read_table(file).to_pylist()


def test_an_exported_graph_gives_the_same_sets(finished, folder, tmp_path):
    export_model(finished.folder, "onnx", tmp_path / "onnx")
    (ours,), (theirs,) = _first(finished.folder, folder), _first(tmp_path / "onnx", folder)
    assert isinstance(ours["predicted"], list)
    assert theirs["predicted"] == ours["predicted"]
    assert [theirs[f"p({name})"] for name in CLASSES] == pytest.approx(
        [ours[f"p({name})"] for name in CLASSES], abs=1e-5
    )


def test_the_report_shows_average_precision_class_by_class(finished):
    page = (finished.folder / "report.html").read_text()
    assert "Average precision, the weakest first" in page
    assert "Mean average precision" in page
    assert "Which was taken for which" not in page


def test_a_corpus_holds_the_sets_and_nothing_that_was_held_out(folder, tmp_path):
    recipe = set_recipe(folder, "rates.method=uniform", "training.steps=1", "data.test={split_off: 0.5}")
    results = run(recipe, tmp_path / "run", quiet=True).results
    target = recipe.data.target_pool
    wanted = Wanted(form="webdataset", with_target=True)
    found = write_corpus(tmp_path / "run", recipe.data.sources, tmp_path / "corpus", wanted, target=target)
    assert found["target"] == results["data"]["target"]["num_samples"] == 20 - results["data"]["test"]["num_samples"]
    pool = read_pool(PoolSpec(path=str(tmp_path / "corpus")), sets=True)
    assert len(pool) == 60 + found["target"]
    assert classes_of(pool) == CLASSES


def test_methods_are_compared_by_their_sets(finished):
    table = side_by_side([finished.results], [predictions_of(finished.folder)])
    assert "mean average precision" in as_text(table)
    gain = {row["method"]: row.get("gain") for row in table["methods"]}["hierarchical"]
    assert "mean_average_precision" in gain


def test_without_a_test_the_target_is_cross_validated(folder, tmp_path):
    plain = ("rates.method=uniform", "training.target_weight=3", "training.steps=2")
    recipe = set_recipe(folder, "data.test=null", "evaluation.folds=2", *plain)
    results = run(recipe, tmp_path / "run", quiet=True).results
    assert results["headline"] == "cross_validated"
    assert results["target"]["num_test"] == 20


def test_what_a_pool_holds_is_told_by_class(folder):
    found = validate_data(set_recipe(folder), Progress(quiet=True))
    assert not found.errors
    assert found.pools["source"]["classes"] == list(CLASSES)
    assert found.pools["target"]["num_classes"] == 3


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("task=single_label", "data.target.label_columns gives an image several classes; set task: multi_label"),
        ("data.target.label_column=bar", "label_column and label_columns both name labels"),
        ("data.source.labels=other", "data.source.labels: other cannot go with task: multi_label"),
        ("data.unlabelled.path=x", "data.unlabelled cannot go with task: multi_label"),
        ("evaluation.metric=nll", "evaluation.metric: nll cannot go with task: multi_label"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(folder, override, told):
    with pytest.raises(RecipeError) as error:
        set_recipe(folder, override)
    assert told in str(error.value)


def test_a_model_of_one_class_an_image_is_not_measured_on_sets(finished_run, folder):
    with pytest.raises(DataError, match="a label is a list"):
        evaluate(finished_run, PoolSpec(path=str(folder / "source.parquet")), Progress(quiet=True))


def test_two_processes_give_the_run_of_one(folder, tmp_path):
    recipe = set_recipe(
        folder,
        "model.backbone=test_vit",
        "training.optimizer=momentum",  # Adam would blow up the rounding of gradients that are zero
        "training.learning_rate=0.02",
        "training.steps=4",
        "training.target_weight=3",
        "rates.residuals=true",
        "rates.observe_every=2",
    )
    run(recipe, tmp_path / "one", quiet=True)
    together(_run_quietly, 2, recipe, tmp_path / "two")
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    distance = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours) ** 0.5
    assert distance <= 1e-5 * sum(float(tensor.square().sum()) for tensor in ours.values()) ** 0.5
    tables = [pq.read_table(tmp_path / name / "rates.parquet").to_pandas() for name in ("one", "two")]
    assert (tables[0].rate - tables[1].rate).abs().max() < 1e-4
    assert (tables[0].visits == tables[1].visits).all()


def _run_quietly(recipe, place):
    run(recipe, place, quiet=True)
