"""What the trained part of a model is fed: pictures, or features that were computed once."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from homing.models.backbone import Preprocessing
from homing.pools.augmentation import CropFlipColor, crop
from homing.pools.images import BadImage, Canvases, Digests, Flags, Images, Loaded
from homing.pools.order import Rows

_Item = TypeVar("_Item")
_Fetched = TypeVar("_Fetched")


@dataclass(frozen=True)
class Visit:
    """Rows that one process puts through the model together. rows, copies: int64 [B]."""

    epoch: int
    rows: Rows
    copies: Rows


class Inputs(Protocol):
    """Model inputs by row, on the model's device."""

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """The augmented inputs of each visit, read ahead."""
        ...

    def evaluating(self, batches: Iterable[Rows]) -> Iterator[Tensor]:
        """Inputs of each batch without augmentation, read ahead."""
        ...


class FeatureBlocks(Protocol):
    """Features of N rows that need not be in memory."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        ...

    def rows(self, rows: slice | Tensor) -> Tensor:
        """Some rows, float32 [m, D] on the CPU."""
        ...


class FeatureInputs:
    """Features computed once; no augmentation.

    Args:
        features: float32 [N, D], or blocks of them on disk.
        device: Where the model is.
        memory_gb: Blocks that take no more are read once, and held on the device.
        ahead: Batches that are read ahead from disk.
    """

    def __init__(
        self,
        features: Tensor | FeatureBlocks,
        device: torch.device,
        *,
        memory_gb: float = 2.0,
        ahead: int = 2,
    ) -> None:
        self.device, self.ahead = device, ahead
        if not isinstance(features, Tensor) and features.shape[0] * features.shape[1] * 4 <= memory_gb * 1e9:
            features = features.rows(slice(0, len(features)))
        self.features = features.to(device) if isinstance(features, Tensor) else features

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """The features of each visit."""
        return self.evaluating(visit.rows for visit in visits)

    def evaluating(self, batches: Iterable[Rows]) -> Iterator[Tensor]:
        """The features of each batch."""
        ahead = 0 if isinstance(self.features, Tensor) else self.ahead
        return (features.to(self.device) for _, features in read_ahead(batches, self._rows, ahead))

    def _rows(self, rows: Rows) -> Tensor:
        wanted = torch.from_numpy(rows)
        if isinstance(self.features, Tensor):
            return self.features[wanted.to(self.features.device, non_blocking=True)]
        return self.features.rows(wanted)


class ImageInputs:
    """Canvases, cropped and normalised on the device; the next ones are decoded meanwhile.

    Args:
        images: Canvases by row.
        preprocessing: Of the model.
        augmentation: None for the evaluation's centre crop.
        seed: Of the augmentation.
        device: Where the model is.
        ahead: Batches decoded in the background, where `images` has threads.
    """

    def __init__(
        self,
        images: Images,
        preprocessing: Preprocessing,
        augmentation: CropFlipColor | None,
        *,
        seed: int,
        device: torch.device,
        ahead: int = 2,
    ) -> None:
        self.images, self.preprocessing, self.augmentation = images, preprocessing, augmentation
        self.seed, self.device, self.ahead = seed, device, ahead

    def on(self, device: torch.device) -> ImageInputs:
        """The same on another device."""
        chosen = copy.copy(self)
        chosen.device = device
        return chosen

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """The augmented inputs of each visit, [B, 3, size, size], channels last."""
        queue: deque[Visit] = deque()

        def rows_of_visits() -> Iterator[Rows]:
            for visit in visits:
                queue.append(visit)
                yield visit.rows

        for loaded in self._loading(rows_of_visits()):
            self.images.checked(loaded)
            yield self._augmented(queue.popleft(), self._to_device(loaded.canvases))

    def evaluating(self, batches: Iterable[Rows]) -> Iterator[Tensor]:
        """Centre crops of each batch, [B, 3, size, size], channels last."""
        for loaded in self._loading(batches):
            yield self._centred(self._to_device(self.images.checked(loaded).canvases))

    def scanning(self, batches: Iterable[Rows]) -> Iterator[tuple[Tensor, list[BadImage]]]:
        """Centre crops of those rows of each batch that can be read, in their order, and the rows that cannot."""
        for images, loaded in self.examining(batches, digest=False):
            yield images, loaded.bad

    def examining(
        self, batches: Iterable[Rows], known: Callable[[Digests], Flags] | None = None, *, digest: bool = True
    ) -> Iterator[tuple[Tensor, Loaded]]:
        """Centre crops of the good rows of each batch, in their order, and what is known of all of them.

        Args:
            batches: Rows.
            known: Which digests need no decoding.
            digest: Whether bytes are read and digested, also of rows whose canvases are at hand.
        """
        for loaded in self._loading(batches, digest=digest, known=known):
            yield self._centred(self._to_device(loaded.canvases)), loaded

    def _loading(self, batches: Iterable[Rows], **settings: Any) -> Iterator[Loaded]:
        allocate = _pinned if self.device.type == "cuda" else None
        return self.images.loading(batches, ahead=self.ahead, allocate=allocate, **settings)

    def _centred(self, canvases: Tensor) -> Tensor:
        return self.preprocessing.normalize(self.preprocessing.center(canvases).float().div_(255))

    def _augmented(self, visit: Visit, canvases: Tensor) -> Tensor:
        if self.augmentation is None:
            return self._centred(canvases)
        parameters = torch.from_numpy(self.augmentation.draw(self.seed, visit.epoch, visit.rows, visit.copies))
        images = crop(canvases.float() / 255, parameters.to(self.device, non_blocking=True), self.preprocessing.size)
        return self.preprocessing.normalize(images)

    def _to_device(self, canvases: Canvases) -> Tensor:
        """uint8 [B, S, S, 3] → uint8 [B, 3, S, S] on the device; the memory stays channels last."""
        return torch.from_numpy(canvases).to(self.device, non_blocking=True).permute(0, 3, 1, 2)


def _pinned(shape: tuple[int, ...]) -> Canvases:
    """Memory that a GPU copies from while the program goes on; torch gives it out again once the copy is done."""
    pinned: Canvases = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
    return pinned


def read_ahead(
    items: Iterable[_Item], fetch: Callable[[_Item], _Fetched], ahead: int
) -> Iterator[tuple[_Item, _Fetched]]:
    """Each item with what is fetched for it, the next `ahead` of them in the background."""
    if not ahead:
        yield from ((item, fetch(item)) for item in items)
        return
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        waiting: list[tuple[_Item, Future[_Fetched]]] = []
        try:
            for item in items:
                waiting.append((item, thread.submit(fetch, item)))
                if len(waiting) > ahead:
                    ready, future = waiting.pop(0)
                    yield ready, future.result()
            for ready, future in waiting:
                yield ready, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


class RowsOf:
    """Some rows of other inputs, counted from 0. rows: int64 [M]."""

    def __init__(self, inputs: Inputs, rows: Rows) -> None:
        self.inputs, self.rows = inputs, rows

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """The augmented inputs of each visit."""
        return self.inputs.training(replace(visit, rows=self.rows[visit.rows]) for visit in visits)

    def evaluating(self, batches: Iterable[Rows]) -> Iterator[Tensor]:
        """Inputs of each batch without augmentation."""
        return self.inputs.evaluating(self.rows[batch] for batch in batches)


def batches_of(rows: Rows, batch_size: int) -> Iterator[Rows]:
    """Rows in pieces of `batch_size`, the last one shorter."""
    return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
