"""What a training leaves behind while it runs: running means, rows of metrics, checkpoints."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from homing.errors import CheckpointError
from homing.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    optimizer_from_plain,
    optimizer_to_plain,
    save_checkpoint,
)

if TYPE_CHECKING:
    from homing.training.loop import FineTuning


class Tally:
    """Mean loss and accuracy of source and target samples since the last row of metrics, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, 3, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

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

    def settle(self) -> None:
        """Count the step at hand."""
        for losses, correct, is_source in self._pending:
            for place, chosen in enumerate((is_source, ~is_source)):
                mass = chosen.to(self.sums.dtype)
                self.sums[place] += torch.stack([(losses * mass).sum(), (correct * mass).sum(), mass.sum()])
        self._pending.clear()

    def take(self, accelerator: Accelerator) -> dict[str, float | None]:
        """The means over all processes, and a fresh start."""
        sums = self.sums
        if accelerator.num_processes > 1:
            sums = cast(Tensor, accelerator.reduce(sums, reduction="sum"))
        values = sums.tolist()
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
    """

    def __init__(self, path: Path, method: str, every: int, *, writes: bool) -> None:
        self.path, self.method, self.every, self.writes = path, method, every, writes
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
        identity: What a checkpoint must belong to (digests of recipe, pools, plan); another one is refused.
        resume: Whether `restore` looks for a checkpoint at all.
    """

    folder: Path
    every: int
    keep: int
    identity: dict[str, str]
    resume: bool

    def save(self, tuning: FineTuning) -> None:
        """Write the state of a fine-tuning; one process writes, all wait."""
        accelerator = tuning.accelerator
        tensors = {
            "model": dict(tuning.raw_model.state_dict()),
            "loop": {"counts": tuning.counts_or_empty(), "sums": tuning.tally.sums, "visits": tuning.visits},
        }
        tensors["optimizer"], optimizer = optimizer_to_plain(tuning.optimizer)
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
        if accelerator.is_main_process:
            save_checkpoint(self.folder, tuning.step, Checkpoint(tensors, state), self.keep)
        accelerator.wait_for_everyone()

    def restore(self, tuning: FineTuning) -> None:
        """Load the newest checkpoint into a fine-tuning, after all of it was verified.

        Raises:
            CheckpointError: It is damaged, or of another recipe, pool or plan.
        """
        path = newest_checkpoint(self.folder) if self.resume else None
        if path is None:
            if tuning.record is not None:
                tuning.record.cut(self._start_of(tuning.record))
            return
        checkpoint = load_checkpoint(path)
        saved = checkpoint.state["identity"]
        if changed := [key for key in sorted({*saved, *self.identity}) if saved.get(key) != self.identity.get(key)]:
            raise CheckpointError(
                f"{path}: was written with another {', '.join(changed)}; resume with what the run began with, or start"
                " again with --overwrite"
            )
        tuning.raw_model.load_state_dict(checkpoint.tensors["model"])
        optimizer_from_plain(tuning.optimizer, checkpoint.tensors["optimizer"], checkpoint.state["optimizer"])
        if tuning.online is not None:
            tuning.online.load(checkpoint.tensors["rates"])
        tuning.step, tuning.epoch = checkpoint.state["step"], checkpoint.state["epoch"]
        tuning.epoch_start = checkpoint.state["epoch_start"]
        counts = checkpoint.tensors["loop"]["counts"].to(torch.int64)
        tuning.counts = counts if len(counts) else None
        tuning.visits = checkpoint.tensors["loop"]["visits"]
        tuning.tally.sums = checkpoint.tensors["loop"]["sums"].to(tuning.tally.sums.device)
        if tuning.record is not None:
            tuning.record.cut(checkpoint.state["metrics_bytes"])

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
