"""Pools that are edited between two runs: what is known of a sample follows its id, and only with consent."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch

from homing.errors import CheckpointError, RecipeError
from homing.flow import run
from homing.training.checkpoint import load_checkpoint, newest_checkpoint
from homing.training.row_map import row_keys
from small_run import CLASSES, draw, draw_problem, small_recipe

STEPS = 6
TABLE = ("rate", "velocity", "alignment", "visits")


def write_metadata(pool: Path, edit=lambda rows: rows) -> list[tuple[str, str]]:
    """The pool's table, in the order of its folders unless edited."""
    paths = [path for shape in CLASSES for path in sorted((pool / shape).glob("[0-9]*.png"))]
    rows = edit([(f"{path.parent.name}/{path.name}", path.parent.name) for path in paths])
    (pool / "metadata.csv").write_text("\n".join(["file_name,label", *(",".join(row) for row in rows)]) + "\n")
    return rows


def _grown(rows):
    return [("bar/new.png", "bar"), *rows]


EDITS = {
    "reordered": lambda rows: rows[::-1],
    "grown": _grown,
    "shrunk": lambda rows: [row for number, row in enumerate(rows) if number % 7],
    "relabelled": lambda rows: [(name, "disk" if name == "bar/003.png" else label) for name, label in rows],
}
EDITS["all of these"] = lambda rows: EDITS["relabelled"](_grown(EDITS["shrunk"](rows[::-1])))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of instance rates that was stopped half way, and its pools."""
    folder = tmp_path_factory.mktemp("stopped")
    problem = draw_problem(folder / "pools")
    draw("bar", np.random.default_rng(9), dark=True).save(problem / "source" / "bar" / "new.png")
    write_metadata(problem / "source")
    run(_recipe(problem), folder / "run", quiet=True)
    for name in ("results.json", "rates.parquet", "report.html", "predictions.safetensors"):
        (folder / "run" / name).unlink()
    shutil.rmtree(folder / "run" / "checkpoints" / f"step-{2 * STEPS:06d}")
    return folder


def _recipe(problem: Path):
    return small_recipe(
        problem,
        *("rates.method=instance", "rates.observe_every=1", f"training.steps={2 * STEPS}", "training.batch_size=16"),
        *(f"output.checkpoint_every={STEPS}", "output.keep=9", "training.ema=0.9"),
    )


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_pool_is_refused_without_consent_and_mapped_by_id_with_it(stopped, tmp_path, name):
    shutil.copytree(stopped / "run", tmp_path / "run")
    problem = stopped / "pools"
    before, rows = write_metadata(problem / "source"), write_metadata(problem / "source", EDITS[name])
    recipe = _recipe(problem)
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"the source changed .*--resume --allow-change"):
        run(recipe, tmp_path / "run", resume=True, quiet=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files

    started = load_checkpoint(newest_checkpoint(tmp_path / "run" / "checkpoints")).tensors
    seen = _tables_at_start(recipe, tmp_path / "run")
    old, new = (dict(zip([name for name, _ in ids], range(len(ids)), strict=True)) for ids in (before, rows))
    for sample_id, row in new.items():
        for column in TABLE:
            saved = started["rates"][f"table/{column}"]
            expected = saved[old[sample_id]] if sample_id in old else torch.tensor(1.0 if column == "rate" else 0.0)
            assert float(seen["table"][column][row]) == float(expected), (sample_id, column)
        visits = started["loop"]["visits"]
        assert int(seen["visits"][row]) == (int(visits[old[sample_id]]) if sample_id in old else 0)
    targets = len(seen["visits"]) - len(rows)
    assert torch.equal(seen["visits"][-targets:], started["loop"]["visits"][-targets:])
    assert len(started["loop"]["counts"])
    assert seen["counts"] is None  # the epoch at hand is drawn anew, also where labels alone have changed

    if name != "all of these":
        return
    result = run(recipe, tmp_path / "run", resume=True, allow_change=True, quiet=True)
    table = pq.read_table(result.folder / "rates.parquet").to_pandas().set_index("sample_id")
    assert sorted(table.index) == sorted(new)
    assert table.rate.notna().all()
    labels = pandas.Series(dict(rows))
    assert (table.label.astype(str) == labels[table.index]).all()


def _tables_at_start(recipe, folder: Path) -> dict:
    """Rates and visits as a resumed training begins with them."""
    from homing.training.loop import FineTuning

    seen: dict = {}
    real = FineTuning.restore

    def restore(self):
        real(self)
        seen.update(table=self.online.table.state_dict(), visits=self.visits.clone(), counts=self.counts)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FineTuning, "restore", restore)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, folder, resume=True, allow_change=True, quiet=True)
    return seen


def test_learned_rates_of_an_edited_pool_are_learned_anew_only_with_consent(tmp_path):
    problem = draw_problem(tmp_path / "pools")
    recipe = small_recipe(problem, "training.steps=4", "output.checkpoint_every=2")
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    (folder / "results.json").unlink()
    picture = next((problem / "test" / "bar").iterdir())
    before = picture.read_bytes()
    picture.write_bytes(next((problem / "test" / "ring").iterdir()).read_bytes())
    with pytest.raises(CheckpointError, match=r"the test changed .*other pictures stand under the same names"):
        run(recipe, folder, resume=True, quiet=True)
    picture.write_bytes(before)
    (problem / "source" / "bar" / "000.png").rename(problem / "source" / "bar" / "zzz.png")
    with pytest.raises(CheckpointError, match="the source changed"):
        run(recipe, folder, resume=True, quiet=True)
    run(recipe, folder, resume=True, allow_change=True, quiet=True)
    table = pq.read_table(folder / "rates.parquet").to_pandas()
    assert "bar/zzz.png" in set(table.sample_id)
    assert "bar/000.png" not in set(table.sample_id)


def test_other_classes_are_refused_with_consent_too(tmp_path):
    problem = draw_problem(tmp_path / "pools")
    recipe = small_recipe(problem, "training.steps=4", "output.checkpoint_every=2", "rates.method=uniform")
    folder = run(recipe, tmp_path / "run", quiet=True).folder
    (folder / "results.json").unlink()
    (problem / "source" / "cross").mkdir()
    (problem / "source" / "bar" / "000.png").rename(problem / "source" / "cross" / "000.png")
    with pytest.raises(CheckpointError, match="another classes"):
        run(recipe, folder, resume=True, allow_change=True, quiet=True)


def test_consent_goes_with_resuming_alone(tmp_path):
    problem = draw_problem(tmp_path / "pools")
    with pytest.raises(RecipeError, match="--allow-change goes with --resume"):
        run(small_recipe(problem), tmp_path / "run", allow_change=True, quiet=True)


def test_one_name_in_two_roles_is_two_rows():
    keys = row_keys(["a.png", "b.png", "a.png"], num_source=2)
    assert len({tuple(key.tolist()) for key in keys}) == 3
