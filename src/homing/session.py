"""How a run runs: processes, device, folder, progress, stop, seed. What it runs on is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from homing.interrupts import stoppable
from homing.progress import Advance, Progress

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Session:
    """The surroundings of a run; the same object serves every method of it.

    Attributes:
        accelerator: Device and processes.
        folder: Of the run.
        progress: Told of every stage.
        seed: Of all that is random.
        resume: Whether to look for what an earlier attempt left.
        allow_change: Whether pools may have changed since.
        stop_asked: Whether to save and stop.
        shared: Folder of a run over several targets, for what all of them use; None: the run's own.
    """

    accelerator: Accelerator
    folder: Path
    progress: Progress = field(default_factory=Progress)
    seed: int = 0
    resume: bool = False
    allow_change: bool = False
    stop_asked: Callable[[], bool] = _never
    shared: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def checkpoints(self) -> Path:
        """Where a run keeps what it needs to go on."""
        return self.folder / "checkpoints"

    def stage(self, title: str, total: float) -> AbstractContextManager[Advance]:
        """A stage of the progress, as `Progress.stage`."""
        return self.progress.stage(title, total)

    @contextmanager
    def shares(self, title: str) -> Iterator[Callable[[float], None]]:
        """A stage that is told the share of it that is done, 0..1, never falling; it ends where a stop is asked for."""
        with self.progress.shares(title) as told:
            yield self.stoppable(told)

    def training(self, title: str, steps: int, note: Callable[[], str]) -> AbstractContextManager[Advance]:
        """A training of the progress, as `Progress.training`."""
        return self.progress.training(title, steps, note)

    def stoppable(self, advance: Callable[[float], None]) -> Callable[[float], None]:
        """The same, but ends the run where a stop was asked for."""
        return stoppable(advance, self.stop_asked)
