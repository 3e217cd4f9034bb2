"""One of two processes fails: both end, with one voice, and nothing was updated in either."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from resumable import draw, left_by, resumable
from safetensors.torch import load

from homing.errors import DivergedError
from processes import LONG_ENOUGH, end_group, ended, group_of, homing, start, start_group
from small_run import draw_problem, small_recipe

OBSERVED, UNOBSERVED = 6, 7  # observe_every: 3
CASES = [("loss", OBSERVED), ("loss", UNOBSERVED), ("gradient", UNOBSERVED), ("alignment", OBSERVED), ("guide", 4)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures"))


def _poison(tuning, kind: str, step: int, rank: int) -> None:
    """Let one value of this process be no number, from a step on."""
    guilty = tuning.accelerator.process_index == rank

    def now() -> bool:
        return guilty and tuning.step >= step

    if kind == "loss":
        forward = tuning.forward
        tuning.forward = lambda *inputs: tuple(t * (math.nan if now() else 1) for t in forward(*inputs))
    elif kind == "gradient":
        backward = tuning.backward

        def backward_and_damage(*arguments, **keywords):
            backward(*arguments, **keywords)
            if now():
                tuning.trained[0].grad.fill_(math.inf)

        tuning.backward = backward_and_damage
    elif kind == "guide":
        evaluating = tuning.inputs.evaluating
        tuning.online.observer.guide.inputs = tuning.inputs
        tuning.inputs.evaluating = lambda batches: (t * (math.nan if now() else 1) for t in evaluating(batches))
    else:
        current = tuning.online.observer.alignment._current

        def damaged():
            if now():
                current()._accumulator.total[0] = math.nan
            return current()

        tuning.online.observer.alignment._current = damaged


def _diverge(pictures: Path, folder: Path, rank: int) -> None:
    """All cases in turn; what each process saw goes to a file."""
    seen = []
    for number, (kind, step) in enumerate(CASES):
        tuning = resumable("still", pictures, folder / str(number), resume=False, every=100)
        _poison(tuning, kind, step, rank)
        weights, refresh = {}, tuning.refresh_direction

        def noting(batch, tuning=tuning, weights=weights, refresh=refresh):
            weights.update({name: tensor.clone() for name, tensor in tuning.raw_model.state_dict().items()})
            refresh(batch)

        tuning.refresh_direction = noting
        try:
            tuning.run()
            seen.append([kind, "not stopped"])
        except DivergedError as error:
            same = all(torch.equal(weights[n], t) for n, t in tuning.raw_model.state_dict().items())
            seen.append([kind, tuning.step, same, error.shared, str(error)])
    (folder / f"seen-{tuning.accelerator.process_index}.json").write_text(json.dumps(seen))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_value_that_is_not_finite_in_one_process_stops_both_before_the_update(pictures, tmp_path, rank):
    end_group(start_group(_diverge, 2, pictures, tmp_path, rank))
    seen = [json.loads((tmp_path / f"seen-{number}.json").read_text()) for number in (0, 1)]
    assert seen[0] == seen[1]  # message and all
    assert [case[:4] for case in seen[0]] == [[kind, step, True, True] for kind, step in CASES]


def test_the_command_exits_4_in_every_process_and_one_tells_it(tmp_path):
    """Processes of their own from start to end, without a launcher that would end them."""
    recipe = small_recipe(
        draw_problem(tmp_path / "pools"),
        *("training.learning_rate=1e30", "training.warmup=0", "training.optimizer=sgd", "rates.method=uniform"),
    )
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    command = ("run", tmp_path / "recipe.yaml", "--output", tmp_path / "run")
    end_group(start_group(homing, 2, *command, stderr=tmp_path / "err"), 4)
    told = [(tmp_path / f"err-{rank}").read_text() for rank in (0, 1)]
    assert "stopped before the update" in told[0]
    assert told[1] == ""
    divergence = json.loads((tmp_path / "run" / "divergence.json").read_text())
    assert divergence["step"] > 1
    assert len(divergence["samples"]) == 8  # of both processes


def test_what_another_process_than_the_first_finds_wrong_is_told_and_ends_both(tmp_path):
    """The pool is missing on the second machine alone."""
    problem = draw_problem(tmp_path / "pools")
    tree = small_recipe(problem, "rates.method=uniform").to_yaml().replace(str(problem / "source"), "$HOMING_SOURCE")
    (tmp_path / "recipe.yaml").write_text(tree)
    processes = [
        start(
            homing,
            *("run", tmp_path / "recipe.yaml", "--output", tmp_path / "run"),
            stderr=tmp_path / f"err-{rank}",
            HOMING_SOURCE=str(problem / ("source", "nowhere")[rank]),
            **own,
        )
        for rank, own in enumerate(group_of(2))
    ]
    assert all(ended(process, LONG_ENOUGH) for process in processes), "waits for ever"
    assert processes[1].exitcode == 3
    assert processes[0].exitcode not in (0, None)
    assert (tmp_path / "err-1").read_text().startswith("homing: process 1: source: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_in_another_number_of_processes(pictures, tmp_path, before, after):
    """At the same global batch only the order of additions differs."""
    resumable("still", pictures, tmp_path / "alone").run()
    end_group(start_group(_half, before, pictures, tmp_path / "cut"))
    end_group(start_group(_resume, after, pictures, tmp_path / "cut"))
    ours, theirs = left_by(tmp_path / "alone"), left_by(tmp_path / "cut")
    for part in ("model", "ema", "rates"):
        one, two = (load(found[f"{part}.safetensors"]) for found in (ours, theirs))
        for name in one:
            distance = float((one[name].double() - two[name].double()).norm())
            assert distance <= 1e-5 * max(1.0, float(one[name].double().norm())), (part, name, distance)
    loops = [load(found["loop.safetensors"]) for found in (ours, theirs)]
    assert torch.equal(loops[0]["visits"], loops[1]["visits"])
    for one, two in zip(json.loads(ours["metrics"]), json.loads(theirs["metrics"]), strict=True):
        assert one.pop("kind") == two.pop("kind")
        assert one.pop("method") == two.pop("method")
        assert one == pytest.approx(two, rel=1e-4, abs=1e-5)


def _resume(pictures: Path, folder: Path) -> None:
    resumable("still", pictures, folder, every=100).run()


def _half(pictures: Path, folder: Path) -> None:
    from homing.errors import Interrupted

    tuning = resumable("still", pictures, folder)
    tuning.stop_asked = lambda: tuning.step == 7
    with pytest.raises(Interrupted):
        tuning.run()
