"""Features of the source, from the cache or from a scan, and which of its images cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.errors import DataError
from homing.features.old_cache import FeatureCache, HeldFeatures, feature_key
from homing.features.old_scan import Scanned, scan
from homing.interrupts import stoppable
from homing.models.inputs import ImageInputs
from homing.pools.images import BadImage
from homing.progress import Progress
from homing.training.distributed import on_main


class SourceFeatures:
    """What a backbone makes of the source's images.

    Args:
        model: The pristine backbone, on the device.
        pictures: Pictures by row; the first `num_rows` are the source's, images that cannot be read among them.
        num_rows: Of the source.
        accelerator: Device and processes.
        precision: fp32 or bf16.
        cache: Where features are kept from run to run; None for nowhere.
        progress: Told of the stages.
        stop_asked: Whether to stop.
    """

    def __init__(
        self,
        model: nn.Module,
        pictures: ImageInputs,
        num_rows: int,
        accelerator: Accelerator,
        *,
        precision: str,
        cache: FeatureCache | HeldFeatures | None,
        progress: Progress,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.model, self.pictures, self.num_rows = model, pictures, num_rows
        self.accelerator, self.precision, self.cache = accelerator, precision, cache
        self.progress, self.stop_asked = progress, stop_asked
        self.num_passed = 0  # images that went through the model
        self.bad: list[BadImage] = []
        self.key = ""
        self.scanned: Scanned | None = None  # of all rows
        if cache is not None:
            self.key, self.scanned = on_main(accelerator, lambda: self._look_up(cache))

    def scan_all(self) -> Scanned:
        """Features of all rows, before anything is left out; images that cannot be read are found on the way."""
        if self.scanned is None:
            self._keep(self._pass(self.num_rows))
        assert self.scanned is not None
        return self.scanned

    def leave_out(self, bad: Iterable[BadImage]) -> None:
        """Take note that some of the source's images were left out of `pictures`, which counts the others from 0."""
        self.bad = [item for item in bad if item.row < self.num_rows]

    def of_kept(self) -> Tensor:
        """Features of the rows that were not left out, float32 [kept, D].

        Raises:
            DataError: An image that could be read before cannot be any more.
        """
        kept = np.setdiff1d(np.arange(self.num_rows), [item.row for item in self.bad])
        if self.scanned is None:
            found = self._pass(len(kept))
            if found.bad:
                raise DataError(f"{found.bad[0].name}: {found.bad[0].reason}; it could be read a moment ago")
            whole = found.features
            if self.bad:
                whole = torch.full((self.num_rows, found.features.shape[1]), torch.nan)
                whole[torch.from_numpy(kept)] = found.features
            self._keep(Scanned(whole, self.bad))
        assert self.scanned is not None
        features = self.scanned.features
        return features if len(kept) == self.num_rows else features[torch.from_numpy(kept)]

    def _pass(self, count: int) -> Scanned:
        with self.progress.stage("scan source", count) as advance:
            told = stoppable(advance, self.stop_asked)
            rows = np.arange(count)
            found = scan(self.model, self.pictures, rows, self.accelerator, precision=self.precision, advance=told)
        self.num_passed = count
        return found

    def _keep(self, scanned: Scanned) -> None:
        self.scanned = scanned
        if self.cache is not None and self.accelerator.is_main_process:
            try:
                self.cache.save(self.key, scanned)
            except OSError as error:
                self.progress.say(f"warning: features cannot be kept in {self.cache.folder} ({error.strerror})")

    def _look_up(self, cache: FeatureCache | HeldFeatures) -> tuple[str, Scanned | None]:
        images = self.pictures.images
        with self.progress.stage("fingerprint source", self.num_rows) as advance:
            digest = images.digest(np.arange(self.num_rows), stoppable(advance, self.stop_asked))
        settings = {"precision": self.precision, "max_pixels": images.max_pixels}
        key = feature_key(digest, self.model, self.pictures.preprocessing, settings)
        found = cache.load(key)
        if found is not None:
            self.progress.say(f"scan source: features of {self.num_rows:,} images were kept from an earlier run")
        return key, found
