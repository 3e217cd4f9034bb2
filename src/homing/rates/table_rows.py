"""The rows of an update: checked, merged, and gathered over processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from homing.errors import DataError


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor as it is; an array or a list as one.

    Raises:
        DataError: It holds something else than numbers.
    """
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what} are of the type {type(values).__name__}; give a tensor of numbers") from error


def checked_rows(rows: Any, num_rows: int) -> Tensor:
    """Row positions as a tensor.

    Raises:
        DataError: Not a vector of integers, or outside of 0 to num_rows − 1.
    """
    found = as_tensor(rows, "rows")
    if found.ndim != 1 or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise DataError(
            f"rows have shape {tuple(found.shape)} and type {found.dtype}; give a vector of integer positions"
        )
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= num_rows):
        raise DataError(
            f"rows range from {int(found.min())} to {int(found.max())}; this table has rows 0 to {num_rows - 1}: "
            "is it the table of this pool?"
        )
    return found


def merge_duplicates(
    rows: Any, values: Any, labels: Any, num_rows: int, num_classes: int
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
    rows, values = checked_rows(rows, num_rows), as_tensor(values, "alignments")
    labels = None if labels is None else as_tensor(labels, "labels")
    if values.shape != rows.shape or (labels is not None and labels.shape != rows.shape):
        found = tuple(values.shape), None if labels is None else tuple(labels.shape)
        raise DataError(f"{len(rows)} rows with values and labels of shapes {found}; give one of each per row")
    if labels is None:
        labels = torch.zeros_like(rows)
    if labels.is_floating_point() or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes):
        kind = str(labels.dtype).removeprefix("torch.")
        raise DataError(
            f"labels are {labels.unique().tolist()[:5]} ({kind}); this table has the classes 0 to {num_classes - 1}: "
            "give RateTable the number of them as num_classes"
        )
    rows, values, labels = (tensor.detach().cpu() for tensor in (rows.long(), values.double(), labels.long()))
    # Sorting by value first makes the sums below run in one order, whatever the order of the batch.
    order = values.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    unique, inverse = rows[order].unique_consecutive(return_inverse=True)
    counts = torch.bincount(inverse, minlength=len(unique))
    sums = torch.bincount(inverse, values[order], minlength=len(unique))
    first = counts.cumsum(0) - counts
    return unique, sums / counts, labels[order][first]


def group_device() -> torch.device:
    """Where tensors must be for the processes to exchange them: nccl takes none from the CPU."""
    backend = str(dist.get_backend())
    if "gloo" in backend or "mpi" in backend or "fake" in backend:
        return torch.device("cpu")
    kind = dist.Backend.backend_capability.get(backend.split(":")[-1], ["cuda"])[0]
    return torch.device(kind, getattr(torch, kind).current_device())


def on_group_device(tensor: Tensor) -> Tensor:
    """The tensor where the group of processes can take it; every tensor that is sent goes through here."""
    return tensor.to(group_device(), non_blocking=True)


def all_gather(gathered: Tensor, mine: Tensor) -> None:
    """Fill a tensor with those of all processes, of equal shape, one behind the other; on the group's device."""
    # torch 2.14 has renamed it, and warns of the old name
    send = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    send(gathered, mine)


def is_alone() -> bool:
    """Whether there is no group of processes, or one of a single process."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def gather_updates(rows: Tensor, values: Tensor, *, at_most: int | None = None) -> tuple[Tensor, Tensor]:
    """The rows and values of all processes, in rank order, so that replicated tables stay bit-equal.

    Args:
        rows: This process's rows [batch]; batches may differ in length between processes.
        values: This process's values [batch], any floating type.
        at_most: No process has more rows than this, the same number in all of them: it spares a round of messages.

    Returns:
        All rows int64 and all values fp64, on the device of the values; the arguments when there is only one process.
    """
    if is_alone():
        return rows, values
    world = dist.get_world_size()
    longest = at_most
    if longest is None:
        lengths = on_group_device(torch.empty(world, dtype=torch.int64))
        all_gather(lengths, on_group_device(torch.tensor([len(rows)])))
        longest = int(lengths.max())
    assert len(rows) <= longest, (len(rows), longest)
    # one message: how many there are, the rows (whole numbers, exact in fp64), the values
    mine = torch.zeros(1 + 2 * longest, dtype=torch.float64, device=values.device)
    mine[0] = len(rows)
    mine[1 : 1 + len(rows)] = rows
    mine[1 + longest : 1 + longest + len(values)] = values.detach()
    gathered = on_group_device(torch.empty(world * len(mine), dtype=torch.float64))
    all_gather(gathered, on_group_device(mine))
    parts = gathered.to(values.device).view(world, -1)
    counts = [int(count) for count in parts[:, 0].tolist()]
    found = torch.cat([part[1 : 1 + count] for part, count in zip(parts, counts, strict=True)])
    of_them = torch.cat([part[1 + longest : 1 + longest + count] for part, count in zip(parts, counts, strict=True)])
    return found.long(), of_them
