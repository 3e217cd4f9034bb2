"""Long work: where it stands, told so often that it can be stopped, and the device that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Work:
    """A stretch of a longer piece of work.

    Attributes:
        tell: Called with the share of the whole that is done, 0..1, never falling; what it raises ends the work.
        device: Where matrix products of many rows run.
        start: Share of the whole that was done before this stretch.
        share: Of the whole that this stretch is.
        together: Whether every process of the group does this same work at the same time and shares its passes, see
            `together.py`.
    """

    tell: Callable[[float], None] | None = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - frozen itself
    start: float = 0.0
    share: float = 1.0
    together: bool = False

    def tick(self, done: float = 0.0) -> None:
        """Tell that this share of the stretch is done, 0..1."""
        if self.tell is not None:
            self.tell(min(1.0, self.start + done * self.share))

    def part(self, start: float, end: float) -> Work:
        """The stretch between two shares of this one."""
        return replace(self, start=self.start + start * self.share, share=(end - start) * self.share)


ALONE = Work()
"""Work that nobody watches, on the CPU."""


def reporting(
    tell: Callable[[float], None] | None, device: torch.device | str = "cpu", *, together: bool = False
) -> Work:
    """Work that tells how far it is; shares that would fall by a rounding are told as they were."""
    if tell is None:
        return Work(device=torch.device(device), together=together)
    reached = 0.0

    def rising(share: float) -> None:
        nonlocal reached
        reached = max(reached, share)
        tell(reached)

    return Work(rising, torch.device(device), together=together)
