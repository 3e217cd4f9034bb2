"""Random crops, flips and colour of a whole batch at once, a pure function of (seed, epoch, row, copy).

Every random number comes from the key of its sample, so a picture looks the same for any number of workers, batches
or processes, and resuming needs no generator state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from homing.pools.order import Rows, keyed_uniform


@dataclass(frozen=True)
class CropFlipColor:
    """How far a training image may stray from its canvas.

    Attributes:
        min_scale: Smallest share of the canvas's area that a crop keeps, (0, 1].
        max_aspect: Widest aspect ratio of a crop, >= 1.
        horizontal_flip: Probability, [0, 1].
        color_jitter: Brightness and contrast factors lie in 1 ± this, [0, 1].
    """

    min_scale: float = 0.5
    max_aspect: float = 1.2
    horizontal_flip: float = 0.5
    color_jitter: float = 0.1

    def draw(self, seed: int, epoch: int, rows: Rows, copies: Rows) -> npt.NDArray[np.float32]:
        """The parameters of each sample; float32 [B, 6].

        Columns: half width and half height of the crop, its centre x and y (the canvas being [-1, 1]), brightness and
        contrast. A negative half width mirrors the crop.
        """
        uniform = keyed_uniform(seed, epoch, rows, copies, num=7)
        area = 1 - uniform[:, 0] * (1 - self.min_scale)
        aspect = self.max_aspect ** (uniform[:, 1] - 0.5)
        width, height = np.minimum(np.sqrt(area) * aspect, 1), np.minimum(np.sqrt(area) / aspect, 1)
        x, y = (1 - width) * (2 * uniform[:, 2] - 1), (1 - height) * (2 * uniform[:, 3] - 1)
        width = np.where(uniform[:, 4] < self.horizontal_flip, -width, width)
        colors = 1 + self.color_jitter * (2 * uniform[:, 5:7] - 1)
        return np.column_stack([width, height, x, y, colors]).astype(np.float32)


def crop(images: Tensor, parameters: Tensor, size: int) -> Tensor:
    """Cut and colour a batch.

    Args:
        images: [B, 3, S, S], values 0 to 1.
        parameters: [B, 6] from `CropFlipColor.draw`, on the same device.
        size: Side of the result, pixels.

    Returns:
        [B, 3, size, size], values 0 to 1.
    """
    width, height, x, y, brightness, contrast = parameters.unbind(1)
    zero = torch.zeros_like(width)
    rows = [torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), [len(images), 3, size, size], align_corners=False)
    images = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    images = images * brightness[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (images - mean) * contrast[:, None, None, None]).clamp(0, 1)
