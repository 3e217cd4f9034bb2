"""The rows of an update: checked, merged, and gathered over processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from homing.errors import DataError


def check_rows(rows: Tensor, num_rows: int) -> None:
    """Refuse what cannot be row positions.

    Raises:
        DataError: Not a vector of integers, or outside of 0 to num_rows − 1.
    """
    if rows.ndim != 1 or rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
        raise DataError(
            f"rows have shape {tuple(rows.shape)} and type {rows.dtype}; give a vector of integer positions"
        )
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= num_rows):
        raise DataError(
            f"rows range from {int(rows.min())} to {int(rows.max())}; this table has rows 0 to {num_rows - 1}: "
            "is it the table of this pool?"
        )


def merge_duplicates(
    rows: Tensor, values: Tensor, labels: Tensor | None, num_rows: int, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One entry per row, in row order, with the mean of its values; the same for any order of the batch's duplicates.

    Args:
        rows: Integer row positions [batch].
        values: One number each [batch].
        labels: Class of each [batch], or None for one class.
        num_rows: Rows of the table.
        num_classes: Classes of the table.

    Returns:
        Rows int64 [k], values fp64 [k], labels int64 [k], k ≤ batch.

    Raises:
        DataError: Out of range, or of different lengths.
    """
    check_rows(rows, num_rows)
    if values.shape != rows.shape or (labels is not None and labels.shape != rows.shape):
        found = tuple(values.shape), None if labels is None else tuple(labels.shape)
        raise DataError(f"{len(rows)} rows with values and labels of shapes {found}; give one of each per row")
    if labels is None:
        labels = torch.zeros_like(rows)
    check_rows(labels, num_classes)
    rows, values, labels = (tensor.detach().cpu() for tensor in (rows.long(), values.double(), labels.long()))
    # Sorting by value first makes the sums below run in one order, whatever the order of the batch.
    order = values.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    unique, inverse = rows[order].unique_consecutive(return_inverse=True)  # type: ignore[no-untyped-call]
    counts = torch.bincount(inverse, minlength=len(unique))
    sums = torch.bincount(inverse, values[order], minlength=len(unique))
    first = counts.cumsum(0) - counts
    return unique, sums / counts, labels[order][first]


def gather_updates(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and values of all processes, in rank order, so that replicated tables stay bit-equal.

    Args:
        rows: This process's rows [batch]; batches may differ in length between processes.
        values: This process's values [batch], any floating type.

    Returns:
        All rows int64 and all values fp64, on the CPU or the process group's device; the arguments when there is only
        one process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows, values
    device = values.device
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(rows)], dtype=torch.int64, device=device))
    longest = int(torch.stack(lengths).max())
    gathered = []
    for tensor in (rows.to(device).long(), values.detach().double()):
        padded = tensor.new_zeros(longest)
        padded[: len(tensor)] = tensor
        parts = [torch.zeros_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        gathered.append(torch.cat([part[: int(n)] for part, n in zip(parts, lengths, strict=True)]))
    return gathered[0], gathered[1]
