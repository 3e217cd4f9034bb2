"""Draw an epoch, step and save on pools of any size; ids and features of the pool are made as they are asked for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from homing.memory import peak_rss_mb

CLASSES, WIDTH, TARGET = 1_000, 256, 2_000
LEAST = 1_000  # rows of the pool whose steps stand beside those of a large one
CASES = [{"rows": rows, "classes": CLASSES, "width": WIDTH} for rows in (1_000, 10_000_000)]
STEPS, BATCH = 300, 32


def measure(cache: Path, rows: int, classes: int, width: int) -> dict[str, Any]:
    """Draw an epoch of a pool, take steps of a head on features, save; what each took.

    Args:
        cache: Where the checkpoint goes.
        rows: Of the source.
        classes: `CLASSES`.
        width: `WIDTH`.

    Returns:
        Seconds to draw the order of an epoch (`seconds`) and what it takes beyond the rates (`order_mb`), the median
        processor time of a step (`step_cpu_ms`, and over that of a pool of `LEAST`: `step_to_least`), digests of all
        ids (`keys_seconds`), a checkpoint (`save_seconds`, `save_mb` beyond what is there) and the process's peak.
    """
    torch.set_num_threads(1)
    folder = cache / f"epoch-{rows}"
    (folder / "least").mkdir(parents=True, exist_ok=True)
    tuning = _tuning(folder, rows)
    before = _resident_mb()
    started, busy = time.perf_counter(), time.process_time()
    drawn = tuning.open_epoch()
    order_seconds, order_cpu = time.perf_counter() - started, time.process_time() - busy
    assert drawn.num_batches > 0
    held = _resident_mb() - before
    peak = max(peak_rss_mb() - before, held)
    started, busy = time.perf_counter(), time.process_time()
    keys = tuning.keys
    keys_seconds, keys_cpu = time.perf_counter() - started, time.process_time() - busy
    step, least = _steps(tuning, _tuning(folder / "least", LEAST))
    resident, started = _resident_mb(), time.perf_counter()
    tuning.save()
    save_seconds = time.perf_counter() - started
    return {
        "seconds": round(order_seconds, 3),
        "peak_rss_mb": round(peak_rss_mb()),
        "rows_per_second": round(rows / order_seconds),
        "cpu_seconds": round(order_cpu, 3),
        "order_mb": round(peak),
        "step_cpu_ms": round(step, 4),
        "step_to_least": round(step / least, 3),
        "keys_seconds": round(keys_seconds, 2),
        "keys_cpu_seconds": round(keys_cpu, 2),
        "keys_mb": round(keys.numel() * 8 / 1e6),
        "save_seconds": round(save_seconds, 2),
        "save_mb": round(max(0.0, _resident_mb() - resident)),
    }


def _tuning(folder: Path, rows: int) -> Any:
    """A head on features; ids and features of the pool are made as they are asked for."""
    from accelerate import Accelerator
    from torch import nn

    from homing.training.loop import FineTuning
    from homing.training.plan import Phase, TrainingPlan
    from homing.training.records import Checkpoints, Record
    from homing.training.row_map import row_keys
    from homing.training.step import Settings

    accelerator = Accelerator(cpu=True)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (rows + TARGET,), generator=generator)
    rates = torch.empty(rows).exponential_(generator=generator)
    plan = TrainingPlan((Phase(rates, 3.0),))
    return FineTuning(
        nn.Linear(WIDTH, CLASSES),
        _MadeUp(),
        labels,
        plan,
        Settings(num_steps=10**6, batch_size=BATCH, learning_rate=1e-3),
        accelerator,
        checkpoints=Checkpoints(folder / "checkpoints", 10**9, 1, {}, resume=False),
        record=Record(folder / "metrics.jsonl", "uniform", 10, writes=True),
        keys=lambda: row_keys(_Ids(rows + TARGET), rows),
    )


def _steps(*tunings: Any) -> list[float]:
    """Median processor time of a step of each, ms: taken in turns, so that all see the same machine."""
    walks = [_walk(tuning) for tuning in tunings]
    times: list[list[float]] = [[] for _ in tunings]
    for _ in range(STEPS):
        for tuning, walk, own in zip(tunings, walks, times, strict=True):
            batch, inputs = next(walk)
            started = time.process_time()  # other programs on the machine do not count
            tuning.take_step(batch, inputs)
            tuning.report()
            tuning.save_if_due()
            own.append(time.process_time() - started)
    return [1e3 * statistics.median(own[STEPS // 10 :]) for own in times]


def _walk(tuning: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from tuning.batches(tuning.open_epoch())
        tuning.end_epoch()


class _MadeUp:
    """Features by row, the same for the same row."""

    table = torch.randn(4096, WIDTH, generator=torch.Generator().manual_seed(1))

    def training(self, visits: Any) -> Any:
        return self.evaluating(visit.rows for visit in visits)

    def evaluating(self, batches: Any) -> Any:
        return (self.table[torch.from_numpy(np.asarray(rows)) % len(self.table)] for rows in batches)


class _Ids:
    """Ids as a pool of folders has them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return [f"class-{row % CLASSES:04d}/image-{row:09d}.jpg" for row in range(*rows.indices(self.count))]
        return self[rows : rows + 1][0]


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1e3
    return 0.0
