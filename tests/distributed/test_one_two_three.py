"""One process, two, and three after a resume: the same rates, ids and visits."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from homing.flow import run
from processes import end_group, homing, start_group
from small_run import draw_problem, small_recipe


def _stopped_after_the_first_checkpoint(*arguments) -> None:
    from homing.training.loop import FineTuning

    real = FineTuning.__init__

    def stopping(self, *positional, **named):
        real(self, *positional, **named)
        self.stop_asked = lambda: self.step >= 5

    FineTuning.__init__ = stopping
    homing(*arguments)


def test_one_process_two_and_three_after_a_resume_give_the_same_rates_ids_and_visits(tmp_path):
    recipe = small_recipe(draw_problem(tmp_path / "pools"), "training.optimizer=momentum", "output.cache=none")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    run(recipe, tmp_path / "one", quiet=True)
    command = ("run", tmp_path / "recipe.yaml", "--quiet", "--output")
    end_group(start_group(_stopped_after_the_first_checkpoint, 2, *command, tmp_path / "cut"), 130)
    assert list((tmp_path / "cut" / "checkpoints").glob("step-*"))
    end_group(start_group(homing, 3, *command, tmp_path / "cut", "--resume"))
    one, cut = (pq.read_table(tmp_path / name / "rates.parquet").to_pandas() for name in ("one", "cut"))
    one, cut = one.set_index("sample_id"), cut.set_index("sample_id")
    assert one.index.tolist() == cut.index.tolist()
    assert one.visits.tolist() == cut.visits.tolist()
    assert cut.rate.to_numpy() == pytest.approx(one.rate.to_numpy(), rel=1e-4, abs=1e-4)  # fp32 sums in another order
