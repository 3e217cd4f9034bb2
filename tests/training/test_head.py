"""The head alone, on real digits: by default it ends no worse than the probe that it starts from."""

import json

import numpy as np

from digit_pools import save_digits
from homing.flow import run
from homing.quickstart import handwritten, printed
from homing.recipe.reading import parse_recipe
from homing.training.optimizer import default_learning_rate

RECIPE = """
data: {source: {path: source}, target: {path: target}, test: {path: test}}
model: {backbone: tf_efficientnet_lite0, weights: bundled, image_size: 48, trainable: head}
rates: {method: uniform}
evaluation: {baselines: []}
training: {epochs: 8, workers: 0, target_weight: 5}
"""


def test_training_does_not_lose_what_the_probe_found(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    scans, digits = handwritten()
    written = [(scans[row], int(digits[row])) for row in generator.permutation(len(scans)) if digits[row] < 5]
    save_digits(tmp_path / "source", [pair for pair in printed(1_000, generator) if pair[1] < 5][:400])
    save_digits(tmp_path / "target", written[:40])
    save_digits(tmp_path / "test", written[40:340])
    monkeypatch.chdir(tmp_path)
    nll = {}
    for name, changes in (("default", []), ("start", ["training.learning_rate=1e-9"])):
        folder = run(parse_recipe(RECIPE, changes), tmp_path / name, quiet=True).folder
        nll[name] = json.loads((folder / "results.json").read_text())["target"]["nll"]
    assert nll["default"] < nll["start"] + 0.02  # 0.25 more with the rate of a random head


def test_a_random_head_has_further_to_go():
    assert default_learning_rate("head", "random") > 10 * default_learning_rate("head", "probe")
