"""A class that only the target has, through a whole run: trained on, predicted, and shown apart."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from homing.errors import HomingError
from homing.flow import run
from homing.predict import evaluate
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from small_run import CLASSES, draw_problem, small_recipe

OTHERS = ["source_only", "target_only", "sequential", "meta_weight_net"]
TOLD = "The target has 1 class that the source lacks: 'ring' (4 images). It is learned from the target's images alone."


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with every method over a source without rings."""
    folder = draw_problem(tmp_path_factory.mktemp("union"))
    shutil.rmtree(folder / "source" / "ring")
    recipe = small_recipe(
        folder, f"evaluation.baselines=[{', '.join(OTHERS)}]", "training.steps=4", "model.trainable=head"
    )
    return run(recipe, folder / "run", quiet=True)


def test_every_method_gives_sane_logits_for_all_classes(finished):
    found = load_file(finished.folder / "predictions.safetensors")
    assert set(found) == {"hierarchical", "labels", *OTHERS}
    for name, logits in found.items():
        if name != "labels":
            assert logits.shape == (18, 3)
            assert bool((torch.isfinite(logits) & (logits.abs() < 100)).all()), name


def test_results_name_the_class_and_say_how_many_images_it_is_learned_from(finished):
    data = finished.results["data"]
    assert (data["classes"], data["only_in_target"]) == (list(CLASSES), {"ring": 4})
    assert finished.results["per_class"]["ring"]["num_test"] == 6
    assert TOLD in finished.results["warnings"]


def test_the_report_shows_the_class_apart(finished):
    report = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "only in the target, 4 images" in report
    assert report.count("only in the target") == 1
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "because the source had none (in brackets, how many): `ring` (4)." in card


def test_the_model_is_evaluated_on_all_classes(finished):
    score = evaluate(finished.folder, PoolSpec(path=str(finished.folder.parent / "test")), Progress(quiet=True))
    assert score["classes"] == list(CLASSES)
    assert score["num_test"] == 18


def test_a_class_of_few_images_is_cross_validated_in_folds_without_it(tmp_path, capsys):
    folder = draw_problem(tmp_path, per_class=4)
    shutil.rmtree(folder / "source" / "ring")
    for path in sorted((folder / "target" / "ring").iterdir())[1:]:
        path.unlink()
    recipe = small_recipe(folder, "data.test=null", "training.steps=2", "evaluation.folds=2", "model.trainable=head")
    results = run(recipe, tmp_path / "run").results
    assert results["headline"] == "cross_validated"
    assert results["per_class"]["ring"]["num_test"] == 1
    assert "warning: The target has 1 class that the source lacks: 'ring' (1 image)." in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["data"]["only_in_target"] == {"ring": 1}


def test_a_run_whose_test_is_split_off_measures_on_it_and_resumes(tmp_path):
    folder = draw_problem(tmp_path, per_class=4)
    settings = ("data.test={split_off: 0.5}", "training.steps=2", "model.trainable=head")
    recipe = small_recipe(folder, *settings)
    results = run(recipe, tmp_path / "run", quiet=True).results
    sizes = {role: results["data"][role]["num_samples"] for role in ("source", "target", "test")}
    assert sizes == {"source": 12, "target": 6, "test": 6}
    assert (results["headline"], results["target"]["num_test"]) == ("test", 6)
    assert run(recipe, tmp_path / "run", resume=True, quiet=True).results == results
    (folder / "target" / "ring" / "003.png").unlink()
    with pytest.raises(HomingError, match="changed since this run saw it"):
        run(recipe, tmp_path / "run", resume=True, quiet=True)
