"""What Python users are given: recipes by path and as dicts, results at a glance, bars in notebooks, numpy arrays."""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

import homing
from homing.errors import DataError, RecipeError
from homing.outputs.in_short import as_html, in_short
from homing.progress import Progress, in_notebook
from homing.rates import Evidence, learn_rates
from homing.recipe.reading import as_recipe

TREE = {"data": {"source": {"path": "pool"}, "target": {"path": "photos"}}, "training": {"steps": 3}}


def test_a_recipe_is_taken_by_path_by_name_and_as_a_dict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TREE))
    whole = as_recipe(TREE)
    assert as_recipe("mine.yaml") == as_recipe(tmp_path / "mine.yaml") == as_recipe(whole) == whole
    by_path = {**TREE, "data": {role: {"path": tmp_path / at["path"]} for role, at in TREE["data"].items()}}
    assert as_recipe(by_path) == whole
    assert as_recipe("quickstart").name
    for wrong, told in (
        ({**TREE, "sed": 1}, "did you mean seed"),
        ("gone.yaml", "gone.yaml: cannot be read"),
        ("a: 1\nb: 2", r"homing\.parse_recipe"),
        (7, "give a Recipe, the path of one, or a dict"),
        ({"data": object()}, "holds what YAML cannot"),
    ):
        with pytest.raises(RecipeError, match=told):
            homing.run(wrong, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_result_is_short_and_a_notebook_shows_its_figures(finished_run):
    from homing.outputs.finished import read_results

    result = homing.RunResult(finished_run, read_results(finished_run))
    score = result.results["target"]
    assert repr(result).startswith(f"RunResult({str(finished_run)!r}: homing, ")
    assert f"accuracy {100 * score['accuracy']:.1f} % [" in repr(result)
    assert len(repr(result)) < 250
    page = result._repr_html_()
    assert page.count("<tr>") == 3  # a head, its own method, a baseline
    assert f"{score['nll']:.3f}" in page
    judged = replace(result, results={**result.results, "metric": "macro_f1"})
    assert f"macro F1 {score['macro_f1']:.3f} [" in repr(judged)
    assert "<th>macro F1</th>" in judged._repr_html_()


def test_results_without_figures_say_what_there_is(tmp_path):
    rates = {"headline": "none", "target": None, "data": {"source": {"num_samples": 1200}}, "warnings": ["<b>"]}
    assert in_short(rates) == "rates only, 1,200 source samples"
    assert "<li>&lt;b&gt;</li>" in as_html(tmp_path, rates)
    assert in_short({"targets": {"acme": {}, "globex": {}}}) == "2 targets: acme, globex"
    assert in_short({}) == "the first process has the results"


def test_a_notebook_gets_a_bar(monkeypatch):
    class ZMQInteractiveShell:
        pass

    assert not in_notebook()
    notebook, widgets = ModuleType("IPython"), ModuleType("ipywidgets")
    notebook.get_ipython = ZMQInteractiveShell
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setattr("homing.progress.find_spec", lambda name: None)
    assert not in_notebook()  # nothing there could draw it
    monkeypatch.setattr("homing.progress.find_spec", lambda name: widgets)
    assert in_notebook()
    drawn = []
    monkeypatch.setattr("rich.progress.Progress.advance", lambda bars, task, done: drawn.append(done))
    monkeypatch.setattr("rich.progress.Progress.start", lambda bars: None)
    with Progress().stage("scan", 2) as advance:
        advance(1)
    assert drawn == [1]


def test_arrays_of_numpy_give_the_rates_of_tensors(tmp_path):
    generator = np.random.default_rng(0)
    labels, few = np.arange(120) % 3, np.arange(15) % 3
    source = (np.eye(3, 8)[labels] + 0.3 * generator.normal(size=(120, 8))).astype(np.float16)
    target = np.eye(3, 8)[few] + 0.3 * generator.normal(size=(15, 8))
    np.save(tmp_path / "source.npy", source)

    def rates(source_features, source_labels, target_features, target_labels):
        parts = (source_features, source_labels, target_features, target_labels)
        return learn_rates(Evidence(*parts, num_classes=3), folds=3).rates

    tensors = (torch.from_numpy(source).float(), torch.from_numpy(labels), torch.from_numpy(target).float())
    expected = rates(*tensors, torch.from_numpy(few))
    assert torch.equal(rates(source, labels.astype(np.uint8), target, few), expected)
    mapped = np.load(tmp_path / "source.npy", mmap_mode="r")
    torch.testing.assert_close(rates(mapped, labels, target, few), expected)
    with pytest.raises(DataError, match=r"np\.unique"):
        rates(source, labels.astype(str), target, few)
