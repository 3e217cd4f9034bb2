"""What the trained part of a model is fed: pictures, or features that were computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from homing.models.backbone import Preprocessing
from homing.pools.augmentation import CropFlipColor, crop
from homing.pools.images import BadImage, Images
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
        for visit, canvases in read_ahead(visits, self._fetch, self.ahead):
            yield self._augmented(visit, self._to_device(canvases))

    def evaluation(self, rows: Rows) -> Tensor:
        """Centre crops, [len(rows), 3, size, size], channels last."""
        canvases = self._to_device(torch.from_numpy(self.images.fetch(rows)))
        return self.preprocessing.normalize(self.preprocessing.center(canvases).float() / 255)

    def scanning(self, batches: Iterable[Rows]) -> Iterator[tuple[Tensor, list[BadImage]]]:
        """Centre crops of those rows of each batch that can be read, in their order, and the rows that cannot."""
        for _, (canvases, bad) in read_ahead(batches, self.images.fetch_good, self.ahead):
            crops = self.preprocessing.center(self._to_device(torch.from_numpy(canvases)))
            yield self.preprocessing.normalize(crops.float() / 255), bad

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

    def evaluation(self, rows: Rows) -> Tensor:
        """Inputs without augmentation."""
        return self.inputs.evaluation(self.rows[rows])


def batches_of(rows: Rows, batch_size: int) -> Iterator[Rows]:
    """Rows in pieces of `batch_size`, the last one shorter."""
    return (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
