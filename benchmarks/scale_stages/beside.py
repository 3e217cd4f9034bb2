"""A training step of the quickstart beside one other such run, against one alone."""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from scale import apart, ended, starting, stopwatch

from scale_stages import timing

STEPS, WARM = 40, 5
CASES = [{"rows": 2_700, "classes": 10, "width": 1_280}]


def steps_of(data: Path) -> list[float]:
    """Milliseconds from one step to the next in a run of its own, the first few left out."""
    from homing import flow
    from homing.recipe.reading import read_recipe, shipped_recipes

    changes = [f"data.{role}.path={data / role}" for role in ("source", "target", "test")]
    changes += [f"training.steps={STEPS}", "evaluation.baselines=[]", "output.cache=none"]
    ends: list[float] = []
    timing.each_step(lambda: ends.append(time.perf_counter()))
    with tempfile.TemporaryDirectory() as folder:
        flow.run(read_recipe(shipped_recipes()["quickstart"], changes), Path(folder) / "run", quiet=True)
    return [1e3 * (end - start) for start, end in pairwise(ends)][WARM:]


def measure(cache: Path, rows: int, classes: int, width: int) -> dict[str, Any]:
    """Alone, a pair at once, alone again: medians of their steps."""
    from homing.quickstart import draw_pools

    data = cache / "quickstart"
    if not data.exists():
        draw_pools(data, 0)
    watch = stopwatch()
    alone = apart(steps_of, data)
    pair = [starting(steps_of, data) for _ in range(2)]
    beside = [step for one in pair for step in ended(one)]
    alone += apart(steps_of, data)
    ratio = statistics.median(beside) / statistics.median(alone)
    return {
        "seconds": watch.read()["seconds"],
        "rows_per_second": round(32e3 / statistics.median(beside)),
        "step_ms_alone": round(statistics.median(alone), 1),
        "step_ms_beside": round(statistics.median(beside), 1),
        "beside_to_alone": round(ratio, 2),
    }
