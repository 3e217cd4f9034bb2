"""metrics.jsonl over several methods and attempts: a resume drops what will be written again, and nothing else."""

from __future__ import annotations

import json

import pytest

from homing.flow import run
from homing.training.records import Record
from small_run import draw_problem, small_recipe


def record_of(path, method: str) -> Record:
    return Record(path, method, 1, writes=True)


def rows_in(path) -> list[tuple[str, int]]:
    return [(row["method"], row["step"]) for row in map(json.loads, path.read_text().splitlines())]


def test_a_resume_in_a_third_method_keeps_the_rows_of_the_first_two(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for method in ("first", "second", "third"):
        for step in (1, 2, 3):
            record_of(path, method).write(step=step)
    for method in ("first", "second", "third"):
        record_of(path, method).cut({"third": 1}.get(method, 3))
    both = [(method, step) for method in ("first", "second") for step in (1, 2, 3)]
    assert rows_in(path) == [*both, ("third", 1)]


def test_rows_of_other_methods_that_come_later_stay(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for method, step in (("own", 1), ("own", 2), ("other", 1), ("own", 3)):
        record_of(path, method).write(step=step)
    record_of(path, "own").cut(1)
    assert rows_in(path) == [("own", 1), ("other", 1)]


@pytest.mark.parametrize(
    "half", ['{"kind": "train", "meth', '{"method": "own", "step": 2}', "[]\n", "\x00\x00\n", "{}\n"]
)
def test_what_a_kill_left_of_a_line_is_dropped(tmp_path, half):
    path = tmp_path / "metrics.jsonl"
    record_of(path, "own").write(step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + half.encode())
    record_of(path, "own").cut(1)
    assert path.read_bytes() == (whole + b"{}\n" if half == "{}\n" else whole)


def test_half_a_line_before_the_first_checkpoint_does_not_break_a_resume(tmp_path):
    recipe = small_recipe(draw_problem(tmp_path / "pools"), "training.steps=3", "rates.method=uniform")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    (folder / "metrics.jsonl").write_text('{"kind": "train", "method": "uniform", "step": 3}\n{"kind": "tra')
    run(recipe, folder, resume=True, quiet=True)
    assert rows_in(folder / "metrics.jsonl") == [("uniform", 3)]
    assert "loss" in json.loads((folder / "metrics.jsonl").read_text())


def test_learned_rates_are_remembered_and_never_computed_again(tmp_path):
    """Another number of threads gives other last digits: what was planned is read, not compared."""
    import torch
    from accelerate import Accelerator

    from homing.rates.learned.plan import Doubt, RatePlan
    from homing.training.learned import remembered

    doubt, accelerator = Doubt(torch.rand(9), torch.rand(9)), Accelerator(cpu=True)
    plan = RatePlan(torch.rand(9), 2.0, source_share=0.25, doubt=doubt)
    remembered(accelerator, tmp_path, {"source": "a"}, lambda: plan, resume=False)
    again = remembered(accelerator, tmp_path, {"source": "a"}, lambda: pytest.fail("computed again"), resume=True)
    assert torch.equal(again.rates, plan.rates)
    assert (again.target_weight, again.source_share) == (2.0, 0.25)
    assert torch.equal(again.doubt.draws, doubt.draws)
    assert torch.equal(again.doubt.right, doubt.right)
