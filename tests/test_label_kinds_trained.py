"""Models trained where source and target share no labels: two sets of classes, or a target without labels."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from digit_pools import save_digits
from homing.compare import compare
from homing.errors import RecipeError
from homing.flow import run
from homing.outputs.export import export_model
from homing.predict import evaluate, predict
from homing.progress import Progress
from homing.quickstart import handwritten, printed
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe, read_recipe
from homing.training.head import of_own_side
from homing.validate import validate_data

SHAPES = ("round", "straight", "open", "open")


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Digits 0 to 3: printed with 60 handwritten among them, labelled by digit or by shape; 32 handwritten; 60 more."""
    folder = tmp_path_factory.mktemp("pools")
    generator = np.random.default_rng(0)
    scans, digits = handwritten()
    written = [(scans[row], int(digits[row])) for row in generator.permutation(len(scans)) if digits[row] < 4]
    source = [*(pair for pair in printed(300, generator) if pair[1] < 4), *written[:60]]
    save_digits(folder / "shared", source)
    save_digits(folder / "other", [(ink, SHAPES[digit]) for ink, digit in source])
    save_digits(folder / "labelled", written[60:92])
    save_digits(folder / "unlabelled", [(ink, "") for ink, _ in written[60:92]])
    save_digits(folder / "test", written[100:160])
    return folder


def recipe_over(pools, source, target, *overrides, test=True):
    data = {
        "source": {"path": str(pools / source), "labels": source},
        "target": {"path": str(pools / target), "labels": "none" if target == "unlabelled" else "shared"},
    }
    tree = {
        "data": data | ({"test": {"path": str(pools / "test")}} if test else {}),
        "model": {
            "backbone": "tf_efficientnet_lite0",
            "weights": "bundled",
            "image_size": 48,
            "trainable": "last_stage",
        },
        "training": {"steps": 12, "batch_size": 16, "workers": 0},
    }
    return parse_recipe(yaml.safe_dump(tree), overrides)


@pytest.fixture(scope="module")
def apart(pools, tmp_path_factory):
    """A run over a source of other classes, with the plain ways beside it."""
    recipe = recipe_over(
        pools,
        "other",
        "labelled",
        "evaluation.baselines=[target_only, pooled_oversampled]",
        "output.checkpoint_every=5",
    )
    return run(recipe, tmp_path_factory.mktemp("apart") / "run", quiet=True)


def test_a_source_of_other_classes_trains_a_model_of_the_targets_classes_alone(apart, pools, tmp_path):
    model = timm.create_model(f"local-dir:{apart.folder / 'model'}", pretrained=True)
    assert model.pretrained_cfg["label_names"] == ["0", "1", "2", "3"]
    assert model.num_classes == model.get_classifier().weight.shape[0] == 4
    assert apart.results["data"]["classes"] == ["0", "1", "2", "3"]
    assert apart.results["target"]["accuracy_interval"][0] > 0.25  # chance
    assert set(apart.results["baselines"]) == {"target_only", "pooled_oversampled"}
    assert apart.results["rates"]["phi"]["target_weight"] > 0
    table = pq.read_table(apart.folder / "rates.parquet").to_pandas()
    assert set(table.label) == set(SHAPES)
    assert set(table.suggested_label.dropna()) <= set(SHAPES)
    assert table.visits.sum() > 0
    rows = io.StringIO()
    predict(apart.folder, [pools / "test"], rows, "csv", Progress(quiet=True))
    rows.seek(0)
    predicted = pandas.read_csv(rows, dtype={"predicted": str})
    assert set(predicted.predicted) <= {"0", "1", "2", "3"}
    measured = evaluate(apart.folder, PoolSpec(path=str(pools / "test")), Progress(quiet=True))
    assert measured["accuracy"] == pytest.approx(apart.results["target"]["accuracy"])
    export_model(apart.folder, "timm", tmp_path / "exported")
    assert "by their likeness to it" in (tmp_path / "exported" / "README.md").read_text()


def test_such_a_run_goes_on_bit_for_bit(apart, tmp_path):

    folder = shutil.copytree(apart.folder, tmp_path / "run")
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-000012")
    run(read_recipe(folder / "recipe.yaml"), folder, resume=True, quiet=True)
    weights = [load_file(place / "model" / "model.safetensors") for place in (apart.folder, folder)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.trainable=head", "model.head_init=random", "rates.apply=weight", "rates.method=sequential"),
        ("model.trainable=all", "training.ema=0.5", "training.mixup=0.2", "rates.method=uniform"),
    ],
)
def test_a_source_of_other_classes_goes_with_the_other_settings(pools, tmp_path, overrides):
    small = ("model.backbone=test_resnet", "model.weights=none", "training.steps=4", "evaluation.folds=2")
    result = run(recipe_over(pools, "other", "labelled", *small, *overrides, test=False), tmp_path / "run", quiet=True)
    assert result.results["headline"] == "cross_validated"
    assert load_file(result.folder / "predictions.safetensors")["labels"].shape == (32,)
    assert timm.create_model(f"local-dir:{result.folder / 'model'}", pretrained=True).num_classes == 4


def test_the_loss_of_each_side_is_that_of_a_head_of_its_own():
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 2, 3, 6, 1, 5])
    losses = torch.nn.functional.cross_entropy(of_own_side(logits, labels, 3), labels, reduction="none")
    for row, label in enumerate(labels.tolist()):
        side = slice(0, 3) if label < 3 else slice(3, 7)
        alone = torch.nn.functional.cross_entropy(logits[row, side], torch.tensor(label - (side.start or 0)))
        assert losses[row].item() == pytest.approx(alone.item(), rel=1e-6)
    losses.sum().backward()
    assert (logits.grad[labels < 3, 3:] == 0).all()
    assert (logits.grad[labels >= 3, :3] == 0).all()


def test_a_target_without_labels_is_served_by_its_rated_source(pools, tmp_path):
    recipe = recipe_over(pools, "shared", "unlabelled", test=False)
    assert validate_data(recipe, Progress(quiet=True)).errors == []
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    results = json.loads((folder / "results.json").read_text())
    assert (results["headline"], results["target"], results["baselines"]) == ("unmeasured", None, {})
    assert any("trained on the rated source alone" in text for text in results["warnings"])
    assert results["rates"]["phi"]["target_weight"] == 0
    assert "Nothing was measured" in (folder / "report.html").read_text()
    assert "Not measured" in (folder / "model" / "README.md").read_text()
    table = pq.read_table(folder / "rates.parquet").to_pandas()
    # 12 steps are an epoch of the source alone
    assert len(table) == 180
    assert table.visits.sum() == 180 * results["cost"]["branches"]
    assert table.rate.std() > 0.1
    found = evaluate(folder, PoolSpec(path=str(pools / "test")), Progress(quiet=True))
    assert found["accuracy_interval"][0] > 0.25  # chance


def test_a_labelled_test_measures_what_an_unlabelled_target_got(pools, tmp_path):
    recipe = recipe_over(pools, "shared", "unlabelled", "evaluation.baselines=[source_only]", "training.steps=4")
    results = run(recipe, tmp_path / "run", quiet=True).results
    assert (results["headline"], results["target"]["num_test"]) == ("test", 60)
    assert "source_only" in results["baselines"]
    assert not any("rated source alone" in text for text in results["warnings"])


@pytest.mark.parametrize(
    ("source", "target", "override", "told"),
    [
        ("other", "labelled", "rates.method=l2rw", "l2rw cannot go with data.source.labels: other; possible are"),
        ("other", "labelled", "evaluation.baselines=[source_only]", "source_only cannot go with data.source.labels"),
        ("other", "labelled", "rates.residuals=true", "rates.residuals compares labels of source and target"),
        ("other", "labelled", "training.target_weight=0", "no other image is of the target's classes"),
        ("shared", "unlabelled", "rates.residuals=true", "cannot go with data.target.labels: none"),
        ("shared", "unlabelled", "rates.method=target_only", "possible are hierarchical, source_only"),
        ("shared", "unlabelled", "evaluation.baselines=[source_only]", "give a labelled data.test"),
    ],
)
def test_methods_that_need_shared_labels_are_refused(pools, source, target, override, told):
    with pytest.raises(RecipeError, match=told):
        recipe_over(pools, source, target, override, test=False)


def test_a_comparison_refuses_them_too(pools, tmp_path):
    with pytest.raises(RecipeError, match="density_ratio cannot go with"):
        compare(recipe_over(pools, "other", "labelled"), ["density_ratio"], 1, tmp_path / "out", quiet=True)
