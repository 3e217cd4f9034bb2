"""Source labels of other classes or none, and targets without labels, on printed and handwritten digits."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from digit_pools import save_digits
from homing.errors import RecipeError
from homing.flow import run
from homing.outputs.corpus import Wanted, write_corpus
from homing.progress import Progress
from homing.quickstart import handwritten, printed
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe
from homing.score import score
from homing.validate import validate_data

NUM_PRINTED = 300


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Printed digits with 50 handwritten ones behind them, a fifth of all labels wrong, under three kinds of labels."""
    folder = tmp_path_factory.mktemp("pools")
    generator = np.random.default_rng(0)
    scans, digits = handwritten()
    written = [(scans[row], int(digits[row])) for row in generator.permutation(len(scans)) if digits[row] < 4]
    machine = [pair for pair in printed(1_000, generator) if pair[1] < 4][:NUM_PRINTED]
    source = [*machine, *written[:50]]
    noisy = [(ink, (digit + (number % 5 == 0)) % 4) for number, (ink, digit) in enumerate(source)]
    save_digits(folder / "shared", noisy)
    save_digits(folder / "other", [(ink, ("zero", "one", "many", "many")[digit]) for ink, digit in source])
    save_digits(folder / "none", [(ink, "") for ink, _ in source])
    save_digits(folder / "labelled", written[50:90])
    save_digits(folder / "unlabelled", [(ink, "") for ink, _ in written[50:90]])
    return folder


def recipe_over(pools, source, target, **changes):
    kinds = {"source": source, "target": "none" if target == "unlabelled" else "shared"}
    data = {
        role: {"path": str(pools / name), "labels": kinds[role]}
        for role, name in (("source", source), ("target", target))
    }
    tree = {
        "data": data,
        "model": {"backbone": "tf_efficientnet_lite0", "weights": "bundled", "image_size": 48},
        "training": {"epochs": 0, "workers": 0},
    }
    return parse_recipe(yaml.safe_dump(tree | changes))


def number_of(table):
    return table.sample_id.str[-9:-4].astype(int)


@pytest.mark.parametrize(
    ("source", "target"),
    [("other", "labelled"), ("none", "labelled"), ("shared", "unlabelled"), ("none", "unlabelled")],
)
def test_hidden_samples_of_the_targets_domain_are_lifted(pools, tmp_path, source, target):
    recipe = recipe_over(pools, source, target)
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    table = pq.read_table(folder / "rates.parquet").to_pandas()
    hidden = number_of(table) >= NUM_PRINTED
    assert hidden.sum() == 50
    likeness = table.target_likeness.to_numpy()
    assert (likeness[hidden][:, None] > likeness[~hidden]).mean() > 0.9  # AUROC
    assert table.rate[hidden].mean() > 1.5 * table.rate[~hidden].mean()
    assert table.groupby("label", observed=True).rate.mean().to_numpy() == pytest.approx(1, rel=1e-4)
    results = json.loads((folder / "results.json").read_text())
    assert any("share no labels" in text and "Nothing was judged" in text for text in results["warnings"])
    assert table.label_consistency.isna().all() == (source == "none")
    if source == "shared":  # its own labels still tell which of them are wrong
        wrong = number_of(table) % 5 == 0
        assert table.rate[wrong & ~hidden].mean() < 0.5 * table.rate[~wrong & ~hidden].mean()
    summary = write_corpus(folder, recipe.data.sources, tmp_path / "corpus", Wanted(keep=0.2, form="metadata"))
    assert set(summary["classes"]) == set(table.label)
    assert validate_data(recipe, Progress(quiet=True)).errors == []
    pool = PoolSpec(path=str(pools / source))
    _, scored = score(folder, pool, tmp_path / "scored.parquet", Progress(quiet=True))
    assert scored["num_samples"] == len(table)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training": {"steps": 3}}, "no model can be trained by it; set training.epochs: 0"),
        ({"data": {"source": {"path": "a"}, "target": {"path": "b", "labels": "other"}}}, "other is for the source"),
        (
            {"data": {"source": [{"path": "a", "labels": "none"}, {"path": "c"}], "target": {"path": "b"}}},
            "none and shared cannot be joined",
        ),
    ],
)
def test_what_such_labels_cannot_do_is_told(pools, changes, told):
    with pytest.raises(RecipeError, match=told):
        recipe_over(pools, "none", "labelled", **changes)
