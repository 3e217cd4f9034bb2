"""Rates for images that a run never saw, on printed and handwritten digits."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from scipy.stats import spearmanr

from digit_pools import save_digits
from homing.errors import DataError
from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.outputs.scorer_folder import open_scorer
from homing.progress import Progress
from homing.quickstart import handwritten, printed
from homing.rates.learned.balance import spread_within_classes
from homing.rates.learned.consistency import neutral_consistency
from homing.rates.learned.likeness import Likeness
from homing.rates.learned.plan import RatePlan
from homing.rates.learned.scorer import fit_scorer
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe
from homing.score import score
from homing.training.learned import remembered
from processes import called

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """A pool of printed digits with handwritten ones hidden in it; a handwritten target; new ones of both kinds."""
    folder = tmp_path_factory.mktemp("pools")
    generator = np.random.default_rng(0)
    scans, digits = handwritten()
    written = [(scans[row], int(digits[row])) for row in generator.permutation(len(scans)) if digits[row] < 4]
    machine = [pair for pair in printed(1_500, generator) if pair[1] < 4]
    save_digits(folder / "source", [*machine[:400], *written[:60]])
    save_digits(folder / "target", written[60:100])
    save_digits(folder / "new-written", written[100:180])
    save_digits(folder / "new-printed", machine[400:500])
    return folder


RECIPE = """
data: {source: {path: source}, target: {path: target}}
model: {backbone: tf_efficientnet_lite0, weights: bundled, image_size: 48}
rates: {folds: 2}
training: {epochs: 0, workers: 0}
output: {cache: none}
"""


def recipe_over(pools, *changes):
    return parse_recipe(RECIPE, [f"data.{role}.path={pools / role}" for role in ("source", "target")] + list(changes))


@pytest.fixture(scope="module")
def finished(pools, tmp_path_factory):
    return run(recipe_over(pools), tmp_path_factory.mktemp("runs") / "run", quiet=True).folder


def scored(finished, pool, output):
    bad, summary = score(finished, PoolSpec(path=str(pool)), output, QUIET)
    assert (bad, summary["num_samples"]) == ([], pq.read_metadata(output).num_rows)
    return pq.read_table(output).to_pandas().set_index("sample_id")


def test_the_runs_own_source_gets_nearly_its_own_rates(pools, finished, tmp_path):
    own = pq.read_table(finished / "rates.parquet").to_pandas().set_index("sample_id")
    again = scored(finished, pools / "source", tmp_path / "own.parquet")
    assert list(own.columns) == list(again.columns)
    assert (own.index == again.index).all()
    for column in ("rate", "target_likeness"):  # not the same: the run's own are out of fold
        assert spearmanr(own[column], again[column]).statistic > 0.95, column
    means = again.groupby("label", observed=True).rate.mean()
    assert ((means > 0.6) & (means < 1.6)).all()


def test_new_images_of_the_targets_domain_get_higher_rates(pools, finished, tmp_path):
    matching = scored(finished, pools / "new-written", tmp_path / "written.parquet")
    others = scored(finished, pools / "new-printed", tmp_path / "printed.parquet")
    assert matching.rate.mean() > 2 * others.rate.mean()
    higher = (matching.rate.to_numpy()[:, None] > others.rate.to_numpy()).mean()
    assert higher > 0.9  # AUROC


def test_wrong_labels_are_found_in_new_images(pools, finished, tmp_path):
    for path in sorted((pools / "new-printed").rglob("*.png")):
        digit = int(path.parent.name)
        wrong = int(path.stem) % 5 == 0
        place = tmp_path / "pool" / str((digit + 1) % 4 if wrong else digit) / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    table = scored(finished, tmp_path / "pool", tmp_path / "scored.parquet")
    wrong = table.index.str[-9:-4].astype(int) % 5 == 0
    assert table.label_consistency[wrong].mean() < table.label_consistency[~wrong].mean() - 1


def test_scoring_does_not_depend_on_batches_or_on_what_else_is_there(pools, finished, tmp_path):
    whole = scored(finished, pools / "new-printed", tmp_path / "whole.parquet")
    few = tmp_path / "few"
    for path in sorted((pools / "new-printed").rglob("*.png"))[::7]:
        (few / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, few / path.parent.name / path.name)
    part = scored(finished, few, tmp_path / "part.parquet")
    assert part.rate.to_numpy() == pytest.approx(whole.rate[part.index].to_numpy(), rel=1e-3)


def test_rates_that_were_remembered_come_with_their_scorer(finished, tmp_path):
    scorer = open_scorer(finished / "scorer").scorer
    plan = RatePlan(torch.ones(3), 1.0, scorer=scorer)
    remembered(Accelerator(cpu=True), tmp_path, {"pools": "these"}, lambda: plan, resume=False)
    again = remembered(
        Accelerator(cpu=True), tmp_path, {"pools": "these"}, lambda: pytest.fail("learned anew"), resume=True
    )
    assert again.scorer is not None
    ours, theirs = scorer.tensors(), again.scorer.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_scorer_of_the_same_weights_in_another_architecture_is_refused(finished, tmp_path):
    shutil.copytree(finished / "scorer", tmp_path / "scorer")
    path = tmp_path / "scorer" / "scorer.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"model_args": about["model_args"] | {"act_layer": "gelu"}}))
    with pytest.raises(DataError, match="the backbone is not the one that was saved"):
        open_scorer(path.parent)
    older = {key: value for key, value in about.items() if key != "structure"}
    for other in (older, about | {"structure": about["structure"] | {"timm": "1.0.0", "digest": "0" * 64}}):
        path.write_text(json.dumps(other))  # what other releases noted says nothing
        open_scorer(path.parent)


def test_what_cannot_be_scored_is_told_and_leaves_no_file(pools, finished, tmp_path):
    (tmp_path / "pool" / "seven").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pool" / "seven" / "a.png")
    with pytest.raises(DataError, match="'seven' is not among"):
        score(finished, PoolSpec(path=str(tmp_path / "pool")), tmp_path / "out.parquet", QUIET)
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "scorer" / "backbone.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        score(tmp_path / "run", PoolSpec(path=str(pools / "target")), tmp_path / "out.parquet", QUIET)
    shutil.rmtree(tmp_path / "run" / "scorer")
    with pytest.raises(DataError, match=r"rates\.method: hierarchical"):
        score(tmp_path / "run", PoolSpec(path=str(pools / "target")), tmp_path / "out.parquet", QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool", "run"]


def test_the_command_rates_all_but_bad_images_and_says_which(pools, finished, tmp_path):
    shutil.copytree(pools / "target", tmp_path / "pool")
    broken = sorted((tmp_path / "pool").rglob("*.png"))[0]
    broken.write_bytes(b"no picture")
    command = ("score", finished, "pool", "--output", "new.parquet", "--json")
    done = called(*command, cwd=tmp_path)
    name = broken.relative_to(tmp_path / "pool").as_posix()
    assert done.returncode == 3
    assert name in done.stderr
    assert json.loads(done.stdout)["bad"] == 1
    table = pq.read_table(tmp_path / "new.parquet").to_pandas().set_index("sample_id")
    assert table.rate[name] == 0
    assert table.rate.drop(name).gt(0).all()
    again = called(*command, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")


def test_a_corpus_can_be_made_of_any_run(pools, finished, tmp_path):
    sources = recipe_over(pools).data.sources
    summary = write_corpus(finished, sources, tmp_path / "corpus", Wanted(keep=0.15, form="metadata"))
    assert set(summary["classes"]) == {"0", "1", "2", "3"}


def test_a_class_that_had_to_be_spread_is_scored_as_it_was_rated():
    """One row of a class looks like the target and is lifted beyond what the floor allows."""
    labels, match = torch.zeros(200, dtype=torch.int64), torch.zeros(200)
    match[-1] = 1.0
    log_ratio = torch.linspace(-1, 1, 200)
    likeness = Likeness(log_ratio, match, 0.005, probe=torch.tensor([1.0, 0.0]))
    rates, uniform = spread_within_classes(1 + 9_999 * match, labels, 1)
    identity = (torch.eye(1), torch.zeros(1))
    consistency = neutral_consistency(labels, 1)
    scorer = fit_scorer(likeness, consistency, identity, labels, rates, num_classes=1, match_lift=10_000, let_go=0)
    assert uniform > 0.5
    torch.testing.assert_close(scorer(log_ratio[:, None], labels).rates, rates, rtol=1e-3, atol=1e-3)
