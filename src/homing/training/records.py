"""What a training leaves behind while it runs: running means, rows of metrics, checkpoints."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from homing.errors import CheckpointError, HomingError
from homing.outputs.artefact import write_whole
from homing.training.checkpoint import (
    REMEDY,
    Checkpoint,
    Reached,
    check_identity,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from homing.training.distributed import on_main
from homing.training.losses import is_right
from homing.training.row_map import RowMap

_RECENT = 20  # steps


class Tally:
    """Mean loss and accuracy of the samples of each role since the last row of metrics, kept on the device.

    Args:
        device: Of the training.
        roles: What rows of each number are called.
        sets: As in `sample_losses`.
    """

    def __init__(
        self, device: torch.device, roles: Sequence[str] = ("source", "target"), sets: Tensor | None = None
    ) -> None:
        self.roles, self._sets = tuple(roles), sets
        kind = torch.float64 if device.type != "mps" else torch.float32
        self.sums = torch.zeros(len(roles), 3, dtype=kind, device=device)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._recent: deque[Tensor] = deque(maxlen=_RECENT)

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor, role: Tensor) -> None:
        """Note one part of a step. losses, labels: [B]; logits: [B, C]; role: int64 [B], number of each row's role."""
        self._pending.append((losses.detach(), is_right(logits.detach(), labels, self._sets), role))

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

    def told(self) -> str:
        """Mean loss of the last settled steps in this process, in words; nothing before the first one."""
        return f"loss {float(sum(self._recent)) / len(self._recent):.3g}" if self._recent else ""

    def settle(self) -> None:
        """Count the step at hand."""
        if self._pending:
            self._recent.append(torch.cat([losses for losses, _, _ in self._pending]).mean())
        for losses, correct, role in self._pending:
            for place in range(len(self.roles)):
                mass = (role == place).to(self.sums.dtype)
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
        whole, _, num = map(sum, zip(*values, strict=True))
        row: dict[str, float | None] = {"loss": _ratio(whole, num)}
        for name, (loss, correct, count) in zip(self.roles, values, strict=True):
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

    def cut(self, step: int) -> None:
        """Drop this method's rows of later steps, and half a line that a kill left; other methods' rows stay."""
        if not self.writes or not self.path.exists():
            return
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if self._stays(line, step)]
        if len(kept) < len(lines):
            write_whole(self.path, b"".join(kept))

    def _stays(self, line: bytes, step: int) -> bool:
        try:
            row = json.loads(line)
            return line.endswith(b"\n") and (row.get("method") != self.method or row["step"] <= step)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False


class Resumable(Protocol):
    """What can be saved and go on: a fine-tuning."""

    accelerator: Accelerator
    step: int

    @property
    def keys(self) -> Tensor:
        """A digest of each row's role and id, int64 [rows, 2]."""
        ...

    def state(self) -> Checkpoint:
        """All that is needed to go on; all processes call it together."""
        ...

    def load(self, checkpoint: Checkpoint, rows: RowMap) -> None:
        """Undo `state`."""
        ...


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

    def save(self, tuning: Resumable) -> None:
        """Write the state of a fine-tuning; one process writes, all wait."""
        state = tuning.state()
        whole = Checkpoint(state.tensors, state.state | {"identity": self.identity})
        on_main(tuning.accelerator, lambda: save_checkpoint(self.folder, tuning.step, whole, self.keep, self.reached))

    def restore(self, tuning: Resumable) -> bool:
        """Load the newest checkpoint into a fine-tuning, after all of it was verified; whether there is one.

        Raises:
            CheckpointError: It is damaged, does not fit, or is of another recipe, pool or plan; nothing has changed.
        """
        path = newest_checkpoint(self.folder) if self.resume else None
        if path is None:
            return False
        checkpoint, before = load_checkpoint(path), tuning.state().copied()
        check_identity(path, checkpoint.state.get("identity"), self.identity, allow_change=self.allow_change)
        try:
            keys, as_before = checkpoint.tensors["loop"]["keys"], checkpoint.state.get("identity") == self.identity
            tuning.load(checkpoint, RowMap.between(tuning.keys, keys, as_before=as_before))
        except Exception as error:
            nothing = torch.empty(0, dtype=torch.int64)
            tuning.load(before, RowMap(nothing, nothing, same=True))
            why = " ".join(str(error).split())
            raise CheckpointError(f"{path}: does not fit this run ({why}). {REMEDY}") from error
        return True


@contextmanager
def telling_what_is_saved(
    checkpoints: Checkpoints | None, saved_at: Callable[[], int | None], num_steps: int
) -> Iterator[None]:
    """An error that nobody foresaw ends with what is not lost."""
    try:
        yield
    except HomingError:
        raise
    except Exception as error:
        if checkpoints is not None and (step := saved_at()) is not None:
            error.add_note(
                f"homing: all up to step {step} of {num_steps} is saved in {checkpoints.folder}; go on with --resume"
            )
        raise
