"""What a frozen trunk makes of pictures, computed once by row and view: what a tail is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn

from homing.models.cut import Cut
from homing.models.inputs import ImageInputs, Visit, batches_of
from homing.models.shelf import Shelf
from homing.pools.order import Rows

_BATCH = 64
"""Images that go through the trunk together, as in a scan: in batches of one size, what becomes of an image does not
depend on what else is in the batch."""
_AT_ONCE = 4 * _BATCH  # missing activations that are computed together, ahead of their use
_AHEAD = 4_096  # rows that are looked at for them before there are as many

_EPOCHS_A_VIEW = 2
"""Epochs before a row's turn comes to its next view: whatever went through the trunk is trained on twice at least."""

Asked = tuple[Rows, Rows]
"""Rows and the view of each."""


class Activations:
    """Activations by row, as inputs of the tail.

    View 0 of a row is the centre of its picture, for evaluation; the others are augmented, the n-th as copy n - 1 of
    epoch 0 is, and trained on in turn. What is not on the shelf yet is computed when it is asked for.

    Args:
        cut: Where the trunk ends.
        model: The pristine model; its trunk stays frozen.
        pictures: By row.
        file: Of the shelf, as for `Shelf`.
        views: Augmented ones, that training takes of each row; 0: it takes the centre.
        dtype: float32 or float16, of what is kept.
        precision: fp32 or bf16, of the model.
        shared: Whether other processes write to the file.
    """

    def __init__(
        self,
        cut: Cut,
        model: nn.Module,
        pictures: ImageInputs,
        file: IO[bytes],
        *,
        views: int,
        dtype: str,
        precision: str,
        shared: bool = False,
    ) -> None:
        self.cut, self.model, self.pictures, self.views, self.precision = cut, model, pictures, views, precision
        self._places = np.arange(len(pictures.images))  # of each row
        self.shelf = Shelf(file, len(self._places) * (1 + views), cut.shape, dtype, shared=shared)
        self._seen: deque[Tensor] = deque()

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """The activations of each visit. Of a row, the copies of an epoch take one view after the other."""
        return self._served((visit.rows, self._views_of(visit)) for visit in visits)

    def evaluating(self, batches: Iterable[Rows]) -> Iterator[Tensor]:
        """The activations of each batch without augmentation."""
        return self._served((rows, np.zeros_like(rows)) for rows in batches)

    def select(self, keep: Rows) -> None:
        """Keep only these rows, in this order; the pictures have done so already."""
        self._places = self._places[keep]

    def close(self) -> None:
        """Give the disk back."""
        self.shelf.file.close()

    # ---- what a scan computes anyway -----------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take note of what the trunk gives while the whole model is asked, until `note` says of which rows."""

        def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._seen.append(inputs[0].float().cpu().clone())  # what follows may write over it

        handle = self.model.get_submodule(self.cut.place).register_forward_pre_hook(see)
        try:
            yield
        finally:
            handle.remove()
            self._seen.clear()

    def note(self, rows: Rows) -> None:
        """Keep what was seen of the next batch: the first of it are these rows, without augmentation."""
        self._keep(rows, np.zeros_like(rows), self._seen.popleft()[: len(rows)])

    # ---- how -----------------------------------------------------------------------------------------------------

    def _views_of(self, visit: Visit) -> Rows:
        if not self.views:
            return np.zeros_like(visit.copies)
        return np.asarray(1 + (visit.epoch // _EPOCHS_A_VIEW + visit.copies) % self.views)

    def _served(self, asked: Iterable[Asked]) -> Iterator[Tensor]:
        """What is asked for, in turn; what is missing of it is looked for ahead, and computed in whole batches."""
        waiting: deque[tuple[Rows, Rows, int]] = deque()  # and how many missing ones were noted up to here
        missing: dict[int, tuple[int, int]] = {}  # number → row and view, those first that are needed first
        noted = ahead = 0
        for rows, views in asked:
            for number, row, view in self._not_here(rows, views):
                noted += number not in missing
                missing.setdefault(number, (row, view))
            waiting.append((rows, views, noted))
            ahead += len(rows)
            if ahead >= _AHEAD or len(missing) >= _AT_ONCE:
                self._fill(missing, len(missing) if ahead >= _AHEAD else _AT_ONCE)
            while waiting and waiting[0][2] <= noted - len(missing):
                rows, views, _ = waiting.popleft()
                ahead -= len(rows)
                yield self._taken(rows, views)
        self._fill(missing, len(missing))
        yield from (self._taken(rows, views) for rows, views, _ in waiting)

    def _not_here(self, rows: Rows, views: Rows) -> Iterator[tuple[int, int, int]]:
        """Number, row and view of what is not on the shelf, while there is room on it."""
        if not self.shelf.is_full:
            numbers = self._numbers(rows, views)
            gone = np.flatnonzero(~self.shelf.has(numbers))
            yield from zip(numbers[gone].tolist(), rows[gone].tolist(), views[gone].tolist(), strict=True)

    def _fill(self, missing: dict[int, tuple[int, int]], count: int) -> None:
        """Compute the first of what is missing, and strike it out."""
        numbers = list(missing)[:count]
        if numbers:
            rows, views = np.array([missing.pop(number) for number in numbers], np.int64).T
            for some, values in self._computed(rows, views):
                self._keep(rows[some], views[some], values)

    def _taken(self, rows: Rows, views: Rows) -> Tensor:
        """Activations of some rows and views, float32 [B, ...] on the device, in the trunk's own memory layout."""
        stored, good = self.shelf.take(self._numbers(rows, views))
        values = torch.from_numpy(stored).float()
        missing = np.flatnonzero(~good)  # where the disk is full
        for some, computed in self._computed(rows[missing], views[missing]):
            stored = self.shelf.rounded(computed.permute(self.cut.axes).numpy())
            values[torch.from_numpy(missing[some])] = torch.from_numpy(stored).float()
        return values.permute(*np.argsort(self.cut.axes).tolist()).to(self.pictures.device)

    def _computed(self, rows: Rows, views: Rows) -> Iterator[tuple[Rows, Tensor]]:
        """Positions in some rows and views, and the activations of these, float32 [m, ...] on the CPU."""
        if not len(rows):
            return
        centres_first = batches_of(np.argsort(views > 0, kind="stable"), _BATCH)
        batches = [(some[views[some] == 0], some[views[some] > 0]) for some in centres_first]
        centred = self.pictures.evaluating(rows[some] for some, _ in batches if len(some))
        augmented = self.pictures.training(Visit(0, rows[some], views[some] - 1) for _, some in batches if len(some))
        training = self.model.training
        self.model.eval()
        try:
            for parts in batches:
                images = [next(of) for of, some in zip((centred, augmented), parts, strict=True) if len(some)]
                some = np.concatenate(parts)
                filled = torch.cat([*images, *[images[-1][-1:]] * (_BATCH - len(some))])
                filled = filled.contiguous(memory_format=torch.channels_last)  # whatever came first
                yield some, self.cut.activations(self.model, filled, self.precision)[: len(some)].cpu()
        finally:
            self.model.train(training)

    def _keep(self, rows: Rows, views: Rows, values: Tensor) -> None:
        self.shelf.put(self._numbers(rows, views), values.permute(self.cut.axes).numpy())

    def _numbers(self, rows: Rows, views: Rows) -> Rows:
        return self._places[rows] * (1 + self.views) + views
