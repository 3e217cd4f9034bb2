"""What the trained part of a model is fed: pictures, or features that were computed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from homing.models.backbone import Preprocessing
from homing.pools.augmentation import CropFlipColor, crop
from homing.pools.images import Images
from homing.pools.order import Rows


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

    def evaluation(self, rows: Rows) -> Tensor:
        """Inputs without augmentation, [len(rows), ...]."""
        ...


class FeatureInputs:
    """Features computed once, float32 [N, D]; no augmentation."""

    def __init__(self, features: Tensor, device: torch.device) -> None:
        self.features = features.to(device)

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """The features of each visit."""
        return (self.evaluation(visit.rows) for visit in visits)

    def evaluation(self, rows: Rows) -> Tensor:
        """The features of some rows, [len(rows), D]."""
        return self.features[torch.from_numpy(rows).to(self.features.device, non_blocking=True)]


class ImageInputs:
    """Canvases, cropped and normalised on the device; the next visits are decoded meanwhile.

    Args:
        images: Canvases by row.
        preprocessing: Of the model.
        augmentation: None for the evaluation's centre crop.
        seed: Of the augmentation.
        device: Where the model is.
        ahead: Visits prepared in the background; 0 for none.
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

    def training(self, visits: Iterable[Visit]) -> Iterator[Tensor]:
        """The augmented inputs of each visit, [B, 3, size, size], channels last."""
        for visit, canvases in self._ahead(visits):
            yield self._augmented(visit, self._to_device(canvases))

    def evaluation(self, rows: Rows) -> Tensor:
        """Centre crops, [len(rows), 3, size, size], channels last."""
        canvases = self._to_device(torch.from_numpy(self.images.fetch(rows)))
        return self.preprocessing.normalize(self.preprocessing.center(canvases).float() / 255)

    def _augmented(self, visit: Visit, canvases: Tensor) -> Tensor:
        if self.augmentation is None:
            return self.preprocessing.normalize(self.preprocessing.center(canvases).float() / 255)
        parameters = torch.from_numpy(self.augmentation.draw(self.seed, visit.epoch, visit.rows, visit.copies))
        images = crop(canvases.float() / 255, parameters.to(self.device, non_blocking=True), self.preprocessing.size)
        return self.preprocessing.normalize(images)

    def _to_device(self, canvases: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] → uint8 [B, 3, S, S] on the device; the memory stays channels last."""
        return canvases.to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    def _fetch(self, visit: Visit) -> Tensor:
        canvases = torch.from_numpy(self.images.fetch(visit.rows))
        return canvases.pin_memory() if self.device.type == "cuda" else canvases

    def _ahead(self, visits: Iterable[Visit]) -> Iterator[tuple[Visit, Tensor]]:
        if not self.ahead:
            yield from ((visit, self._fetch(visit)) for visit in visits)
            return
        with ThreadPoolExecutor(1, "read-ahead") as thread:
            waiting: list[tuple[Visit, Future[Tensor]]] = []
            try:
                for visit in visits:
                    waiting.append((visit, thread.submit(self._fetch, visit)))
                    if len(waiting) > self.ahead:
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

    def evaluation(self, rows: Rows) -> Tensor:
        """Inputs without augmentation."""
        return self.inputs.evaluation(self.rows[rows])


def batches_of(rows: Rows, batch_size: int) -> Iterator[Rows]:
    """Rows in pieces of `batch_size`, the last one shorter."""
    return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
