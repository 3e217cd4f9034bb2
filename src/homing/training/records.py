"""What a training leaves behind while it runs: running means, rows of metrics, checkpoints."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from homing.errors import CheckpointError
from homing.training.checkpoint import (
    REMEDY,
    Checkpoint,
    Reached,
    check_identity,
    load_checkpoint,
    newest_checkpoint,
    optimizer_from_plain,
    optimizer_to_plain,
    save_checkpoint,
)
from homing.training.distributed import on_main
from homing.training.row_map import RowMap

if TYPE_CHECKING:
    from homing.training.loop import FineTuning


_RECENT = 20  # steps


class Tally:
    """Mean loss and accuracy of source and target samples since the last row of metrics, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, 3, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._recent: deque[Tensor] = deque(maxlen=_RECENT)

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor, is_source: Tensor) -> None:
        """Note one part of a step. losses, labels, is_source: [B]; logits: [B, C]."""
        self._pending.append((losses.detach(), logits.detach().argmax(1) == labels, is_source))

    def last_finite(self) -> Tensor:
        """Whether all losses of the step at hand are finite; bool scalar on the device."""
        finite = torch.ones((), dtype=torch.bool, device=self.sums.device)
        for losses, _, _ in self._pending:
            finite = finite & torch.isfinite(losses).all()
        return finite

    def last_losses(self) -> list[float]:
        """Losses of the step at hand in this process."""
        return [round(value, 4) for losses, _, _ in self._pending for value in losses.tolist()]

    def recent_losses(self) -> list[float]:
        """Mean losses of the last settled steps in this process, oldest first, at most 20."""
        return [round(float(loss), 4) for loss in self._recent]

    def settle(self) -> None:
        """Count the step at hand."""
        if self._pending:
            self._recent.append(torch.cat([losses for losses, _, _ in self._pending]).mean())
        for losses, correct, is_source in self._pending:
            for place, chosen in enumerate((is_source, ~is_source)):
                mass = chosen.to(self.sums.dtype)
                self.sums[place] += torch.stack([(losses * mass).sum(), (correct * mass).sum(), mass.sum()])
        self._pending.clear()

    def over_processes(self, accelerator: Accelerator) -> Tensor:
        """The sums over all processes."""
        if accelerator.num_processes == 1:
            return self.sums
        return cast(Tensor, accelerator.reduce(self.sums, reduction="sum"))

    def start_with(self, sums: Tensor, accelerator: Accelerator) -> None:
        """Go on from the sums of all processes; the main one holds them, whatever the number of processes was."""
        mine = sums if accelerator.is_main_process else torch.zeros_like(sums)
        self.sums = mine.to(self.sums.device)

    def take(self, accelerator: Accelerator) -> dict[str, float | None]:
        """The means over all processes, and a fresh start."""
        values = self.over_processes(accelerator).tolist()
        self.sums = torch.zeros_like(self.sums)
        row: dict[str, float | None] = {"loss": _ratio(values[0][0] + values[1][0], values[0][2] + values[1][2])}
        for name, (loss, correct, count) in zip(("source", "target"), values, strict=True):
            row |= {f"{name}_loss": _ratio(loss, count), f"{name}_accuracy": _ratio(correct, count)}
        return row


def _ratio(total: float, count: float) -> float | None:
    return round(total / count, 6) if count else None


class Record:
    """Rows of `metrics.jsonl`, written by the main process alone.

    Args:
        path: The file; rows are appended.
        method: Goes into every row.
        every: Steps between two rows.
        writes: Whether this process is the one that writes.
        also: Called with the values and the step of each row written; None for nobody.
    """

    def __init__(
        self,
        path: Path,
        method: str,
        every: int,
        *,
        writes: bool,
        also: Callable[[dict[str, Any], int], None] | None = None,
    ) -> None:
        self.path, self.method, self.every, self.writes, self.also = path, method, every, writes, also
        self.started = time.monotonic()

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether this step has a row."""
        return step % self.every == 0 or step == num_steps

    def write(self, **values: Any) -> None:
        """Append one row."""
        if self.writes:
            row = {"kind": "train", "method": self.method, **values}
            row["seconds"] = round(time.monotonic() - self.started, 3)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if self.also is not None:
                self.also({f"train/{key}": value for key, value in values.items() if key != "step"}, values["step"])

    def size(self) -> int:
        """Bytes written so far, by this or earlier runs."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Drop rows that were written after a checkpoint."""
        if self.writes and self.path.exists() and self.size() > size:
            with self.path.open("r+b") as file:
                file.truncate(size)


@dataclass(frozen=True)
class Checkpoints:
    """Where a fine-tuning saves itself.

    Attributes:
        folder: Holds `step-NNNNNN` folders.
        every: Steps between two checkpoints.
        keep: How many of the newest are kept.
        identity: What a checkpoint must belong to (digests of recipe, classes, pools, plan); another one is refused.
        resume: Whether `restore` looks for a checkpoint at all.
        allow_change: Whether the pools may be others than the checkpoint's; what is known of a sample follows its id.
        reached: Told each stage of a save; see `save_checkpoint`.
    """

    folder: Path
    every: int
    keep: int
    identity: dict[str, str]
    resume: bool
    allow_change: bool = False
    reached: Reached = lambda stage: None

    def save(self, tuning: FineTuning) -> None:
        """Write the state of a fine-tuning; one process writes, all wait."""
        state = self._state_of(tuning)
        on_main(tuning.accelerator, lambda: save_checkpoint(self.folder, tuning.step, state, self.keep, self.reached))

    def restore(self, tuning: FineTuning) -> None:
        """Load the newest checkpoint into a fine-tuning, after all of it was verified.

        Raises:
            CheckpointError: It is damaged, does not fit, or is of another recipe, pool or plan; nothing has changed.
        """
        path = newest_checkpoint(self.folder) if self.resume else None
        if path is None:
            if tuning.record is not None:
                tuning.record.cut(self._start_of(tuning.record))
            return
        checkpoint, before = load_checkpoint(path), self._state_of(tuning).copied()
        check_identity(path, checkpoint.state.get("identity"), self.identity, allow_change=self.allow_change)
        try:
            self._put_into(tuning, checkpoint)
        except Exception as error:
            self._put_into(tuning, before)
            why = " ".join(str(error).split())
            raise CheckpointError(f"{path}: does not fit this run ({why}). {REMEDY}") from error
        if tuning.record is not None:
            tuning.record.cut(checkpoint.state["metrics_bytes"])

    def _state_of(self, tuning: FineTuning) -> Checkpoint:
        tensors = {
            "model": dict(tuning.raw_model.state_dict()),
            "loop": {
                "counts": tuning.counts_or_empty(),
                "sums": tuning.tally.over_processes(tuning.accelerator),
                "visits": tuning.visits,
                "keys": tuning.keys,
            },
        }
        tensors["optimizer"], optimizer = optimizer_to_plain(tuning.optimizer)
        if tuning.average is not None:
            tensors["ema"] = dict(tuning.average.module.state_dict())
        if tuning.online is not None:
            tensors["rates"] = tuning.online.state()
        state = {
            "step": tuning.step,
            "epoch": tuning.epoch,
            "epoch_start": tuning.epoch_start,
            "optimizer": optimizer,
            "metrics_bytes": 0 if tuning.record is None else tuning.record.size(),
            "identity": self.identity,
        }
        return Checkpoint(tensors, state)

    @staticmethod
    def _put_into(tuning: FineTuning, checkpoint: Checkpoint) -> None:
        tensors, state, loop = checkpoint.tensors, checkpoint.state, checkpoint.tensors["loop"]
        rows = RowMap.between(tuning.keys, loop["keys"])
        tuning.raw_model.load_state_dict(tensors["model"])
        optimizer_from_plain(tuning.optimizer, tensors["optimizer"], state["optimizer"])
        if tuning.average is not None:
            tuning.average.module.load_state_dict(tensors["ema"])
        if tuning.online is not None:
            tuning.online.load(tensors["rates"], rows.moved)
        tuning.step, tuning.epoch, tuning.epoch_start = state["step"], state["epoch"], state["epoch_start"]
        tuning.visits = rows.moved(loop["visits"], torch.zeros_like(tuning.visits))
        tuning.tally.start_with(loop["sums"], tuning.accelerator)
        tuning.counts = loop["counts"].to(torch.int64) if len(loop["counts"]) else None
        if not rows.same and tuning.counts is not None:  # the epoch at hand was of other rows: a new one begins
            tuning.counts, tuning.epoch, tuning.epoch_start = None, state["epoch"] + 1, state["step"]

    @staticmethod
    def _start_of(record: Record) -> int:
        """Where the rows of a method begin that has no checkpoint yet: behind those of the methods before it."""
        if not record.path.exists():
            return 0
        size = 0
        with record.path.open("rb") as file:
            for line in file:
                if json.loads(line).get("method") == record.method:
                    break
                size += len(line)
        return size
