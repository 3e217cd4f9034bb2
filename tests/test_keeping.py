"""Every model that was trained is kept, a method is added to a finished run, and a training prolonged."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from homing.errors import CheckpointError, RecipeError
from homing.evaluation.choice import choose
from homing.flow import run
from homing.measures import MEASURES
from homing.outputs.export import export_model
from homing.outputs.going_on import why_not
from homing.outputs.kept_models import left_out_warnings
from homing.outputs.report.keeping import shipped_line
from homing.outputs.report.page import environment
from homing.outputs.report.verdict import scores, verdict
from homing.predict import evaluate
from homing.progress import Progress
from homing.recipe.data import PoolSpec
from homing.recipe.reading import read_recipe
from small_run import draw_problem, small_recipe

QUIET = Progress(quiet=True)
FAST = ("training.steps=4", "model.trainable=head", "rates.method=uniform", "output.checkpoint_every=2")


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return draw_problem(tmp_path_factory.mktemp("keeping"))


def test_every_model_is_kept_and_gives_the_figures_that_the_run_measured(finished_run):
    results, test = read(finished_run), PoolSpec(path=str(finished_run.parent / "test"))
    assert results["models"] == {
        "shipped": "hierarchical",
        "kept": ["hierarchical", "pooled_oversampled"],
        "left_out": [],
    }
    rows = {"hierarchical": results["target"], **results["baselines"]}
    for name, row in rows.items():
        found = evaluate(finished_run, test, QUIET, method=name)
        assert {key: found[key] for key in ("accuracy", "num_test")} == {
            key: row[key] for key in ("accuracy", "num_test")
        }
        assert found["nll"] == pytest.approx(row["nll"], abs=1e-6)
    assert rows["hierarchical"]["nll"] != rows["pooled_oversampled"]["nll"]
    assert evaluate(finished_run, test, QUIET)["nll"] == pytest.approx(results["target"]["nll"], abs=1e-6)


def read(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_runs_own_model_takes_no_room_twice_and_survives_a_copy(finished_run, tmp_path):
    one, other = (finished_run / place / "model.safetensors" for place in ("model", "models/hierarchical"))
    assert one.samefile(other)
    shutil.copytree(finished_run, tmp_path / "copy")
    test = PoolSpec(path=str(finished_run.parent / "test"))
    assert evaluate(tmp_path / "copy", test, QUIET)["accuracy"] == read(finished_run)["target"]["accuracy"]


def test_a_method_that_was_not_kept_is_named_with_those_that_were(finished_run, tmp_path):
    with pytest.raises(RecipeError, match=r"'pooled' is kept here; --method takes hierarchical, pooled_oversampled$"):
        export_model(finished_run, "timm", tmp_path / "out", method="pooled")
    assert not (tmp_path / "out").exists()
    shutil.copytree(finished_run, tmp_path / "old")  # of before there was `models/`
    shutil.rmtree(tmp_path / "old" / "models")
    results = read(finished_run)
    del results["models"]
    (tmp_path / "old" / "results.json").write_text(json.dumps(results))
    export_model(tmp_path / "old", "timm", tmp_path / "out", method="hierarchical")
    with pytest.raises(RecipeError, match=r"--method takes hierarchical$"):
        export_model(tmp_path / "old", "timm", tmp_path / "other", method="pooled_oversampled")


def written(accuracy):
    return MEASURES["accuracy"].write(accuracy)


def test_an_exported_baseline_comes_with_its_own_figures(finished_run, tmp_path):
    export_model(finished_run, "timm", tmp_path / "out", method="pooled_oversampled")
    card, results = (tmp_path / "out" / "README.md").read_text(), read(finished_run)
    assert "by the method “Pooled, target oversampled” (`pooled_oversampled`" in card
    assert f"| **this model** | {written(results['baselines']['pooled_oversampled']['accuracy'])} |" in card
    assert f"| homing | {written(results['target']['accuracy'])} |" in card
    ours, kept = (
        load_file(f / "model.safetensors") for f in (tmp_path / "out", finished_run / "models/pooled_oversampled")
    )
    assert all(torch.equal(ours[name], kept[name]) for name in kept)


def test_a_method_is_added_to_a_finished_run_as_if_it_had_been_there(problem, tmp_path):
    """Also where a run has targets by name, each with a folder of its own."""
    named = [f"data.{role}={{mine: {{path: {problem / role}}}}}" for role in ("target", "test")]
    both, one = (
        small_recipe(problem, *FAST, *named, f"evaluation.baselines=[{names}]")
        for names in ("pooled, source_only", "pooled")
    )
    whole = run(both, tmp_path / "whole", quiet=True).folder / "mine"
    folder = run(one, tmp_path / "run", quiet=True).folder / "mine"
    kept = (folder / "models/pooled/model.safetensors").stat().st_mtime_ns
    before = (folder / "results.json").read_bytes()
    run(both, folder.parent, resume=True, quiet=True)
    assert (folder.parent / "recipe.yaml").read_text() == both.to_yaml()
    (folder / "results.json").write_bytes(before)  # as a kill between the models and the mark leaves it
    shutil.rmtree(folder / "models" / "source_only")
    run(read_recipe(folder / "recipe.yaml"), folder, resume=True, quiet=True)
    assert (folder / "models/pooled/model.safetensors").stat().st_mtime_ns == kept
    ours, theirs = read(folder), read(whole)
    for results in (ours, theirs):
        for name in ("seconds", "method_seconds", "peak_rss_mb", "scanned_source_images"):
            del results["cost"][name]
    assert ours == theirs
    assert (folder / "recipe.yaml").read_text() == (whole / "recipe.yaml").read_text()
    for name in ("uniform", "pooled", "source_only"):
        first, second = (load_file(each / "models" / name / "model.safetensors") for each in (folder, whole))
        assert all(torch.equal(first[key], second[key]) for key in first)
    for page in ("report.html", "model/README.md"):
        assert "Source only" in (folder / page).read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["seed=3"], "seed was 0, is 3"),
        (["training.learning_rate=0.1"], "training.learning_rate was not given, is 0.1"),
        (["evaluation.baselines=[source_only]"], "lacks pooled; methods can be added"),
        (["training.steps=8"], "training.steps was 4, is 8, and training.schedule: cosine depends on the last step"),
        (["training.steps=2"], "training.steps was 4, is 2; a training can be prolonged, and not shortened"),
        (["training.epochs=2"], "training.steps 4, is training.epochs 2; a training can be prolonged by the same key"),
    ],
)
def test_what_else_differs_is_named(finished_two, problem, changes, told):
    with pytest.raises(CheckpointError, match=told):
        run(
            small_recipe(problem, *FAST, "evaluation.baselines=[pooled]", *changes),
            finished_two,
            resume=True,
            quiet=True,
        )


@pytest.fixture(scope="module")
def finished_two(problem, tmp_path_factory):
    recipe = small_recipe(problem, *FAST, "evaluation.baselines=[pooled]")
    return run(recipe, tmp_path_factory.mktemp("two") / "run", quiet=True).folder


def remove(picture):
    picture.unlink()


def replace_by_a_ring(picture):
    shutil.copy(picture.parents[1] / "ring" / "000.png", picture)


@pytest.mark.parametrize("change", [remove, replace_by_a_ring])
def test_a_method_is_not_added_over_other_pools(problem, tmp_path, change):
    pools = shutil.copytree(problem, tmp_path / "pools")
    recipe = small_recipe(pools, *FAST)
    run(recipe, tmp_path / "run", quiet=True)
    change(pools / "target" / "bar" / "000.png")
    more = small_recipe(pools, *FAST, "evaluation.baselines=[pooled]")
    for allow in (False, True):
        told = "the target changed since this run saw it .* what it began with, or begin again"  # consent is no help
        with pytest.raises(CheckpointError, match=told):
            run(more, tmp_path / "run", resume=True, allow_change=allow, quiet=True)
    assert read(tmp_path / "run")["baselines"] == {}


STEADY = ("training.schedule=constant", "training.warmup=0", "training.learning_rate=0.01", "output.checkpoint_every=2")


def test_a_prolonged_training_ends_where_the_longer_one_does(problem, tmp_path):
    settings = (*STEADY, "model.trainable=head", "rates.residuals=true", "evaluation.baselines=[pooled]")
    recipes = [small_recipe(problem, *settings, f"training.steps={steps}") for steps in (3, 9)]
    whole = run(recipes[1], tmp_path / "whole", quiet=True).folder
    run(recipes[0], tmp_path / "run", quiet=True)
    folder = run(recipes[1], tmp_path / "run", resume=True, quiet=True).folder
    ours, theirs = (load_file(each / "model" / "model.safetensors") for each in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert read(folder)["target"] == read(whole)["target"]
    assert read(folder)["baselines"] == read(whole)["baselines"]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("training.warmup=0.1", "training.warmup: 0.1 is a share of all steps"),
        ("training.average_last=0.5", "training.average_last: 0.5 is a share of all steps"),
        ("rates.method=sequential", "rates.method: sequential divides all steps"),
    ],
)
def test_why_a_training_cannot_be_prolonged(problem, setting, told):
    began, now = (small_recipe(problem, *STEADY, setting, f"training.steps={steps}") for steps in (3, 9))
    assert why_not(began, now).startswith(f"training.steps was 3, is 9, and {told}")


def test_folds_of_the_target_choose_the_model_where_that_is_asked_for(problem, tmp_path):
    asked = (*FAST, "model.keep=best", "evaluation.folds=2", "output.models_gb=0")
    first, more = (
        small_recipe(problem, *asked, f"evaluation.baselines=[{names}]")
        for names in ("source_only", "source_only, target_only")
    )
    folder = run(first, tmp_path / "run", quiet=True).folder
    run(more, folder, resume=True, quiet=True)
    results, folds = read(folder), load_file(folder / "folds.safetensors")
    chosen, labels = results["models"]["chosen_on"], folds.pop("labels")
    shares = {name: float((logits.argmax(1) == labels).double().mean()) for name, logits in folds.items()}
    assert chosen["accuracy"] == shares
    assert len(labels) == chosen["num_target"] == 12
    shipped = results["models"]["shipped"]
    assert shares[shipped] == max(shares.values())
    assert chosen["against"] != shipped
    assert chosen["gain"]["low"] <= chosen["gain"]["mean"] <= chosen["gain"]["high"]
    row = {"uniform": results["target"], **results["baselines"]}[shipped]
    test = PoolSpec(path=str(problem / "test"))
    assert evaluate(folder, test, QUIET)["nll"] == pytest.approx(row["nll"], abs=1e-6)
    assert "2 folds prefer" in (folder / "report.html").read_text()
    # what there was no room for is not there, and said
    assert set(results["models"]["kept"]) == {"uniform", shipped}
    (left_out, *_) = names = results["models"]["left_out"]
    told = f"Models that were not kept: {', '.join(names)}; "
    assert f"{told}there was no room (output.models_gb is 0)." in results["warnings"]
    assert left_out_warnings(folder, results["models"], most_gb=4) == [f"{told}an earlier version trained them."]
    with pytest.raises(RecipeError, match=f"no model of {left_out!r} is kept"):
        evaluate(folder, test, QUIET, method=left_out)


def test_the_best_is_never_less_than_the_probe_that_training_starts_from(problem, tmp_path):
    """A rate that tears the model apart: what is shipped is the start, which costs no step."""
    wild = ("training.steps=6", "training.learning_rate=.03", "model.keep=best", "evaluation.folds=2")
    folder = run(small_recipe(problem, *wild, "evaluation.baselines=[]"), tmp_path / "run", quiet=True).folder
    results = read(folder)
    shares = results["models"]["chosen_on"]["accuracy"]
    assert results["models"]["shipped"] == "probe"
    assert shares["probe"] > shares["hierarchical"]
    assert results["cost"]["method_gradients"]["probe"] == 0
    test = PoolSpec(path=str(problem / "test"))
    assert evaluate(folder, test, QUIET)["nll"] == pytest.approx(results["baselines"]["probe"]["nll"], abs=1e-6)
    card = (folder / "model/README.md").read_text()
    assert "given a new head, else as it was, by homing" in card
    assert "to learn the rates of the source, and to choose their settings" in card
    ours, start = (load_file(folder / f"models/{name}/model.safetensors") for name in ("hierarchical", "probe"))
    fixed = [name for name in start if name.endswith("running_mean")]
    assert fixed
    assert all(torch.equal(ours[name], start[name]) for name in fixed)
    assert "“Probe, nothing fine-tuned”, which the target" in (folder / "report.html").read_text()


def test_the_choice_takes_the_most_accurate_and_of_equals_the_surer_one():
    labels = torch.tensor([0, 1, 1, 0])
    right = torch.nn.functional.one_hot(labels, 2).float()
    wrong_once = right.clone()
    wrong_once[0] = right[1]
    found = choose("own", {"own": right, "pooled": 3 * right, "oracle": 9 * right}, labels, folds=2, seed=0)
    assert (found["shipped"], found["chosen_on"]["against"]) == ("pooled", "own")
    found = choose("own", {"own": right, "pooled": 3 * wrong_once}, labels, folds=2, seed=0)
    assert (found["shipped"], found["chosen_on"]["against"]) == ("own", "pooled")
    assert found["chosen_on"]["gain"]["mean"] == pytest.approx(0.25)
    assert choose("own", {"own": right}, labels, folds=2, seed=0)["chosen_on"]["gain"] is None


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"shipped": "hierarchical", "kept": ["hierarchical", "pooled"]}, "take it with `--method pooled`."),
        ({"shipped": "pooled", "kept": ["hierarchical", "pooled"]}, "it is what `model/` holds."),
        ({"shipped": "hierarchical", "kept": ["hierarchical"]}, "was not kept: train it with `rates.method=pooled`."),
        (None, "was not kept: train it with `rates.method=pooled`."),
    ],
)
def test_a_better_method_is_named_with_the_way_to_its_model(models, told):
    rows = {"target": {"accuracy": 0.5, "num_test": 1000}, "baselines": {"pooled": {"accuracy": 0.9, "num_test": 1000}}}
    text = verdict(scores(rows), models).text
    assert "which is better here; " in text
    assert text.endswith(told)


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        ((0.0, 0.0, 0.0), "prefer: as often right as “homing” on 1 image, at a lower loss."),
        ((0.25, 0.0, 0.5), "prefer: +25.0 points of accuracy [0.0, +50.0] against “homing”, on 1 image."),
    ],
)
def test_why_the_folds_prefer_a_model_is_said_in_numbers_that_differ(gain, told):
    chosen = {
        "folds": 2,
        "num_target": 1,
        "against": "hierarchical",
        "gain": dict(zip(("mean", "low", "high"), gain, strict=True)),
    }
    assert shipped_line({"models": {"shipped": "pooled", "chosen_on": chosen}}).endswith(told)


def test_keys_in_a_sentence_of_the_report_are_code_and_names_stay_text():
    page = environment().from_string("{{ text | prose }}").render(text="`model/` has 9 % of <b>")
    assert page == "<code>model/</code> has 9\u00a0% of &lt;b&gt;"
