"""Processes that learn rates together: each reads its share of the rows, and all come to what one process finds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from homing.rates import learn_rates
from homing.rates.learned.blocks import HeldFeatures
from processes import together

ROWS, BLOCK = 1_000, 256
sys.path.insert(0, str(Path(__file__).parents[1] / "rates"))


class Counted(HeldFeatures):
    """Blocks that count how many rows they were asked for."""

    asked = 0

    def rows(self, rows):
        found = super().rows(rows)
        type(self).asked += len(found)
        return found


def _evidence():
    """A pool of which every pass is one over blocks: fits see 400 rows."""
    from gaussian_domains import hidden_matches

    from homing.rates.learned import consistency, drawing, learner, together

    drawing.MOST_ROWS, learner.JUDGED_ROWS = 400, 300
    consistency.BLOCK_ROWS = together.BLOCK_ROWS = BLOCK
    evidence = hidden_matches(seed=0, hidden=100, others=ROWS - 100, wrong=0.2)
    return replace(evidence, source_features=Counted(evidence.source_features))


def _learn(folder: Path) -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    evidence = _evidence()
    plan = learn_rates(evidence, together=size > 1)
    torch.save(
        {"rates": plan.rates, "suggested": plan.suggested, **plan.descriptors}, folder / f"plan-{size}-{rank}.pt"
    )
    (folder / f"facts-{size}-{rank}.json").write_text(json.dumps([Counted.asked, plan.phi, plan.judged]))


def test_three_processes_share_the_rows_and_find_what_one_does(tmp_path):
    for size in (1, 3):
        together(_learn, size, tmp_path)
    alone = torch.load(tmp_path / "plan-1-0.pt")
    asked, phi, judged = json.loads((tmp_path / "facts-1-0.json").read_text())
    for rank in range(3):
        plan = torch.load(tmp_path / f"plan-3-{rank}.pt")
        assert plan.keys() == alone.keys()
        for name, values in plan.items():
            assert torch.equal(values, alone[name]), name
        own_asked, own_phi, own_judged = json.loads((tmp_path / f"facts-3-{rank}.json").read_text())
        assert own_phi == phi
        assert own_judged == judged
        assert own_asked < 0.8 * asked  # fits and the projection look at the same rows everywhere
