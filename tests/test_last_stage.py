"""Whole runs that train the last stage on activations that are kept."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from homing.flow import run
from homing.models.activations import Activations
from homing.predict import evaluate
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from small_run import draw_problem, small_recipe

RECIPE = (
    "model.trainable=last_stage",
    "model.backbone=test_efficientnet",
    "training.target_weight=4",
    "evaluation.baselines=[pooled]",
)


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("pools"))


@pytest.fixture
def computed(monkeypatch):
    """Rows and views that had to be computed because no scan had seen them."""
    found: list[int] = []
    before = Activations._computed

    def counted(self, rows, views):
        found.extend(views.tolist())
        return before(self, rows, views)

    monkeypatch.setattr(Activations, "_computed", counted)
    return found


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_what_a_scan_saw_and_what_is_computed_later_are_the_same_bits(problem, tmp_path, computed):
    recipe = small_recipe(problem, *RECIPE, f"output.cache={tmp_path}/cache")  # nobody has scanned these pictures yet
    first = run(recipe, tmp_path / "first", quiet=True)
    assert computed
    assert 0 not in computed  # centres were seen by the scan
    computed.clear()
    again = run(recipe, tmp_path / "again", quiet=True)  # whose pictures were scanned before
    assert 0 in computed
    assert first.results["target"] == again.results["target"]
    ours, theirs = weights(first.folder), weights(again.folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_pictures_that_are_left_out_leave_the_others_their_activations(tmp_path):
    pools = draw_problem(tmp_path / "pools", per_class=9)
    (pools / "source" / "disk" / "003.png").write_bytes(b"no picture")
    (pools / "target" / "bar" / "001.png").write_bytes(b"no picture")
    changes = (*RECIPE, "data.on_bad_image=drop", "training.augmentation=none", "evaluation.baselines=[]")
    kept = run(small_recipe(pools, *changes), tmp_path / "kept", quiet=True)
    anew = run(small_recipe(pools, *changes, "training.views=0"), tmp_path / "anew", quiet=True)
    ours, theirs = weights(kept.folder), weights(anew.folder)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    assert kept.results["target"]["nll"] == pytest.approx(anew.results["target"]["nll"], rel=1e-4)


def test_what_is_shipped_is_what_was_measured(problem, tmp_path):
    result = run(small_recipe(problem, *RECIPE), tmp_path / "run", quiet=True)
    found = evaluate(result.folder, PoolSpec(path=str(problem / "test")), Progress(quiet=True))
    assert found["accuracy"] == result.results["target"]["accuracy"]
    assert found["nll"] == pytest.approx(result.results["target"]["nll"], rel=1e-5)
