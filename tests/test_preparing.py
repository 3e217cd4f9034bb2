"""From a recipe to features: what is scanned, what is left out, and what a fold may have seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from homing.flow import run
from homing.models.parts import batch_norms
from homing.preparing import adapt_to, prepare
from homing.progress import Progress
from homing.session import Session
from small_run import draw_problem, small_recipe


@pytest.fixture
def session(tmp_path):
    return Session(Accelerator(cpu=True), tmp_path / "run", Progress(quiet=True))


def statistics(model):
    return torch.cat([module.running_mean for module in batch_norms(model)])


def test_a_backbone_that_adapts_has_not_seen_the_target_images_that_a_fold_holds_out(tmp_path, session):
    problem = draw_problem(tmp_path / "pools")
    recipe = small_recipe(problem, "training.batch_norm=adapt", "data.test=null")
    with prepare(recipe, session) as whole:
        seen = whole.material.problem.target_rows[:6]
        part = whole.seeing(seen, recipe, session)
        held_out = [Path(problem / "target") / whole.material.problem.id_of(int(row)) for row in range(42 + 6, 42 + 12)]
        assert not torch.equal(statistics(part.material.model), statistics(whole.material.model))
    for path in held_out:  # other pictures in their place change nothing of what the fold works with
        path.write_bytes((problem / "test" / "bar" / "000.png").read_bytes())
    with prepare(recipe, session) as other:
        again = other.seeing(seen, recipe, session)
        assert torch.equal(statistics(again.material.model), statistics(part.material.model))
        rows = torch.arange(48)
        assert torch.equal(again.material.features.rows(rows), part.material.features.rows(rows))


@pytest.mark.parametrize("count", [1, 65])
def test_a_backbone_adapts_to_any_number_of_images(tmp_path, session, count):
    """The last maps of such small pictures are of one position: one image has no spread there by itself."""
    problem = draw_problem(tmp_path / "pools")
    recipe = small_recipe(problem, "training.batch_norm=adapt")
    with prepare(recipe, session) as prepared:
        rows = torch.arange(count).numpy() % len(prepared.material.problem)
        adapt_to(prepared.material.model, prepared.material.pictures, rows)
        assert statistics(prepared.material.model).isfinite().all()


@pytest.mark.parametrize(("change", "wanted"), [((), True), (("model.head_init=random", "rates.method=pooled"), False)])
def test_nothing_goes_through_the_model_where_nothing_looks_at_features(tmp_path, session, change, wanted):
    recipe = small_recipe(draw_problem(tmp_path / "pools"), "output.cache=none", *change)
    with prepare(recipe, session) as prepared:
        assert (prepared.material.features is not None) == wanted


def test_pictures_that_are_kept_on_disk_are_decoded_once_and_train_alike(tmp_path):
    problem, cache = draw_problem(tmp_path / "pools"), tmp_path / "cache"
    weights = []
    for name, change in (("memory", ()), ("disk", ("data.cache=disk",)), ("again", ("data.cache=disk",))):
        recipe = small_recipe(problem, f"output.cache={cache / name.replace('again', 'disk')}", *change)
        if name == "again":  # no picture is read from its file any more: they are other files from inside
            for path in (problem / "source").rglob("*.png"):
                state = path.stat()
                path.write_bytes(bytes(state.st_size))
                os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        folder = run(recipe, tmp_path / name, quiet=True).folder
        weights.append(load_file(folder / "model" / "model.safetensors"))
    for other in weights[1:]:
        assert all(torch.equal(other[key], value) for key, value in weights[0].items())
