"""One process, two, and three that go on where two were stopped: the same rates, ids and visits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SIDE, STEPS, CUT = 32, 60, 30
CASES = [{"rows": 200_000, "classes": 20}]


def together(size: int, *arguments: object) -> int:
    """Exit code of a group that trains together, under torch's own launcher."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size)]
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "PYTHONPATH": os.pathsep.join(places)}
    environment.pop("OMP_NUM_THREADS", None)  # the launcher sets one thread a process
    return subprocess.run([*launcher, *map(str, arguments)], env=environment, check=False).returncode


def measure(cache: Path, rows: int, classes: int, width: int | None = None) -> dict[str, Any]:
    """Seconds of all three; how far the two tables of rates are from each other."""
    import numpy as np
    import pyarrow.parquet as pq
    from scale import stopwatch

    from scale_stages import drawing, timing

    folder = cache / f"files-{rows}-{classes}"
    data = drawing.draw_problem(folder, rows, classes, SIDE)
    for old in ("one", "cut", "store-processes"):
        shutil.rmtree(folder / old, ignore_errors=True)
    recipe = timing.recipe_of(
        data,
        folder / "store-processes",
        model={"backbone": "test_resnet", "weights": "none", "image_size": SIDE, "trainable": "head"},
        training={"steps": STEPS, "optimizer": "momentum"},
    )
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    command = ("run", folder / "recipe.yaml", "--quiet", "--output")
    watch = stopwatch()
    assert together(1, "-m", "homing", *command, folder / "one") == 0
    shutil.rmtree(folder / "store-processes")  # each scans for itself
    assert together(2, __file__, *command, folder / "cut") != 0
    assert list((folder / "cut" / "checkpoints").rglob("step-*"))
    assert together(3, "-m", "homing", *command, folder / "cut", "--resume") == 0
    seconds = watch.read()["seconds"]
    one, cut = (pq.read_table(folder / name / "rates.parquet").to_pandas() for name in ("one", "cut"))
    return {
        "seconds": seconds,
        "same_ids": bool((one.sample_id == cut.sample_id).all()),
        "same_visits": bool((one.visits == cut.visits).all()),
        "largest_difference_of_rates": float(np.abs(one.rate - cut.rate).max()),
    }


if __name__ == "__main__":
    from homing.cli.app import main
    from scale_stages import timing

    timing.stop_after(CUT)
    sys.argv[0] = "homing"
    main()
