"""What an observed step costs, against a plain step of forward, backward and optimizer, side by side.

    python benchmarks/step_cost.py [--rounds 9] [--models resnet18,vit_tiny_patch16_224] [--json FILE]
    python benchmarks/step_cost.py --rounds 0    # memory alone, which does not depend on what else the machine does

One row per architecture (training mode, batch norm frozen, AdamW, fp32, one thread):

* observed: every step observed, the direction at hand;
* default: a block of 8 steps, every 4th observed, the direction refreshed once from a target batch of a quarter;
* double backward: the alignments of one batch by a second graph (L2RW's way), not by observing (every 3rd round);
* memory: peak resident memory of a fresh process with observed steps, over one with plain steps (glibc told to hand
  freed blocks back at once in both, so that it is memory in use and no fragmentation of the heap);
* growth: time of `rates[rows]` and `rates.update` at 10 million rows minus that at 1 thousand, over a plain step.

Rounds are interleaved, times are CPU time; a ratio is the median over rounds of (that step / the plain step of the same
round), its spread the middle half of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from references import double_backward
from torch import nn
from torch.nn.functional import cross_entropy

from homing.rates import Alignment, Direction, RateTable

ARCHITECTURES = {  # name → (pixels, batch)
    "resnet18": (128, 32),
    "efficientnet_lite0": (128, 32),
    "mobilenetv3_small_100": (128, 32),
    "convnext_atto": (128, 32),
    "vit_tiny_patch16_224": (224, 8),
    "swin_tiny_patch4_window7_224": (224, 4),
}
STEPS, OBSERVE_EVERY = 8, 4


class Workload:
    """One architecture with its batch, optimizer and everything that a step needs."""

    def __init__(self, name: str, channels_last: bool) -> None:
        torch.manual_seed(0)
        size, batch = ARCHITECTURES[name]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = timm.create_model(name, num_classes=10).to(memory_format=layout).train()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        self.images = torch.randn(batch, 3, size, size).to(memory_format=layout)
        self.labels = torch.randint(0, 10, (batch,))
        self.rows = torch.arange(batch)
        self.target = self.images[: max(1, batch // 4)], self.labels[: max(1, batch // 4)]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-5)
        self.rates = RateTable(10_000)
        self.alignment = Alignment(self.model, observe_every=OBSERVE_EVERY)
        self.direction = Direction(self.model, self.optimizer)

    def losses(self) -> torch.Tensor:
        """One loss per sample."""
        return cross_entropy(self.model(self.images), self.labels, reduction="none")

    def plain(self) -> None:
        """Forward, backward, optimizer."""
        self.losses().mean().backward()
        self.finish()

    def observed(self) -> None:
        """The same, with rates and alignments."""
        with self.alignment.observe(self.direction):
            (self.rates[self.rows] * self.losses()).mean().backward()
        self.rates.update(self.rows, self.alignment.values())
        self.finish()

    def refresh(self) -> None:
        """Renew the direction from a target batch of a quarter."""
        images, labels = self.target
        self.direction.update(cross_entropy(self.model(images), labels))

    def default_block(self) -> None:
        """Eight steps as the defaults have them."""
        self.refresh()
        for step in range(STEPS):
            if self.alignment.due(step):
                self.observed()
            else:
                (self.rates[self.rows] * self.losses()).mean().backward()
                self.finish()

    def double(self) -> None:
        """A plain step, and its alignments by a second graph."""

        def losses_of(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return cross_entropy(outputs, labels, reduction="none")

        double_backward(self.model, losses_of, self.images, self.labels, dict(self.direction))
        self.plain()

    def finish(self) -> None:
        """The optimizer."""
        self.optimizer.step()
        self.optimizer.zero_grad()


def seconds(step: Callable[[], None]) -> float:
    start = time.process_time()  # one thread: what else runs on the machine counts less than on the clock
    step()
    return time.process_time() - start


def spread_of(ratios: list[float]) -> list[float]:
    return [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]]


def measure(name: str, channels_last: bool, rounds: int) -> dict[str, object]:
    """Time all kinds of step of one architecture, interleaved."""
    memory = round(peak_memory(name, "observed") / peak_memory(name, "plain"), 3)
    if not rounds:
        return {"model": name, "layout": "channels_last", "memory_ratio": memory}
    work = Workload(name, channels_last)
    work.plain()
    work.refresh()
    work.observed()
    doubles = can_double(work)
    times: dict[str, list[float]] = {"plain": [], "observed": [], "default": [], "double": []}
    for number in range(rounds):
        times["plain"].append(seconds(work.plain))
        times["observed"].append(seconds(work.observed))
        times["default"].append(seconds(work.default_block) / STEPS)
        if doubles and number % 3 == 0:
            times["double"].append(seconds(work.double))
    ratios = {kind: [t / p for t, p in zip(times[kind], times["plain"], strict=False)] for kind in times}
    ratios["double"] = [t / statistics.median(times["plain"]) for t in times["double"]]
    return {
        "model": name,
        "layout": "channels_last" if channels_last else "contiguous",
        "plain_ms": round(1e3 * statistics.median(times["plain"]), 1),
        "observed_ratio": round(statistics.median(ratios["observed"]), 3),
        "observed_spread": spread_of(ratios["observed"]),
        "default_ratio": round(statistics.median(ratios["default"]), 3),
        "default_spread": spread_of(ratios["default"]),
        "double_backward_ratio": round(statistics.median(ratios["double"]), 2) if doubles else None,
        "memory_ratio": memory,
        "coverage": round(work.alignment.coverage().parameters, 4),
        "growth": round(growth(len(work.rows)) / statistics.median(times["plain"]), 5),
    }


def can_double(work: Workload) -> bool:
    """Whether every operation of the model can be differentiated twice."""
    try:
        work.double()
    except RuntimeError:
        work.model.zero_grad()
        return False
    return True


def growth(batch: int) -> float:
    """Seconds that reading and updating takes longer in a table of 10 million rows than in one of 1 thousand."""
    tables = [RateTable(num_rows) for num_rows in (1_000, 10_000_000)]
    times: list[list[float]] = [[], []]
    for _ in range(30):
        for table, found in zip(tables, times, strict=True):
            rows, values = torch.randperm(1_000)[:batch] * (len(table) // 1_000), torch.randn(batch)
            found.append(seconds(lambda t=table, r=rows, v=values: (t[r], t.update(r, v))))  # type: ignore[misc]
    return statistics.median(times[1]) - statistics.median(times[0])


def peak_memory(name: str, kind: str) -> int:
    """Peak resident memory of three steps in a process of their own, above that of a process that only imports."""
    command = [sys.executable, "-W", "ignore", __file__, "--peak", f"{name}:{kind}"]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def print_peak(task: str) -> None:
    name, kind = task.split(":")
    before = resident("VmRSS")
    work = Workload(name, channels_last=True)
    if kind == "observed":
        work.refresh()
    for _ in range(3):
        work.observed() if kind == "observed" else work.plain()
    print(resident("VmHWM") - before)


def resident(field: str) -> int:
    """Resident memory in kB, now (VmRSS) or at its peak (VmHWM); getrusage would carry over the parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def print_table(rows: list[dict[str, object]]) -> None:
    columns = list(rows[0])
    widths = [max(len(c), *(len(str(row[c])) for row in rows)) for c in columns]
    for line in [dict(zip(columns, columns, strict=True)), *rows]:
        print("  ".join(str(line[c]).ljust(w) for c, w in zip(columns, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", default=",".join(ARCHITECTURES))
    parser.add_argument("--layouts", default="channels_last", help="channels_last (what training uses), contiguous")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if arguments.peak:
        print_peak(arguments.peak)
        return
    rows = []
    for name in arguments.models.split(","):
        for layout in arguments.layouts.split(","):
            rows.append(measure(name, layout == "channels_last", arguments.rounds))
            print(rows[-1], file=sys.stderr, flush=True)
            save(rows, arguments)
    print_table(rows)


def save(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    if arguments.json:
        setting = {
            "rounds": arguments.rounds,
            "threads": 1,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "machine": platform.machine(),
            "command": "python " + " ".join(["benchmarks/step_cost.py", *sys.argv[1:]]),
        }
        arguments.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
