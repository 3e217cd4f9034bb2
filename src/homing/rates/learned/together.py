"""Work that all processes of a group do together: the same fits in each, every pass over the rows shared among them.

Fits look at drawn rows and are small; each process does them. A pass looks at every row of the pool, and each process
takes a stretch of whole blocks, so that no block depends on how many processes there are. What comes back is a few
numbers a row, never features.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from homing.rates.learned.blocks import BLOCK_ROWS
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.work import Work
from homing.rates.table_rows import all_gather, is_alone, on_group_device


def place_of(work: Work) -> tuple[int, int]:
    """This process's number and how many there are, as far as this work is done together."""
    return (0, 1) if not work.together or is_alone() else (dist.get_rank(), dist.get_world_size())


def agreed(values: Tensor, work: Work) -> Tensor:
    """What the first process found, in every process: devices round differently."""
    if place_of(work)[1] == 1:
        return values
    sent = on_group_device(values.contiguous().clone())
    dist.broadcast(sent, 0)
    return sent.to(values.device)


def added(values: Tensor, work: Work) -> Tensor:
    """The sum over processes."""
    if place_of(work)[1] == 1:
        return values
    sent = on_group_device(values.contiguous().clone())
    dist.all_reduce(sent)
    return sent.to(values.device)


def over_rows(
    evidence: Evidence,
    answer: Callable[[Tensor, Tensor], Tensor],
    num_answers: int,
    work: Work,
    *,
    asked: Tensor | None = None,
    size: int | None = None,
) -> Tensor:
    """Some numbers of every source row, from one pass over blocks of features.

    Args:
        evidence: The source.
        answer: From rows `[m]` int64 and their features `[m, D]` to `[num_answers, m]`.
        num_answers: K.
        work: Told of, and whether processes share the pass.
        asked: `[N]` bool; the other rows are not read, their answers are 0.
        size: Rows a block; `BLOCK_ROWS` where not given.

    Returns:
        `[K, N]` float32, the same in every process.
    """
    size = size or BLOCK_ROWS
    rank, world = place_of(work)
    edges = _edges(evidence.num_source, size, world)
    first, end = edges[rank], edges[rank + 1]
    found = torch.zeros(num_answers, end - first)
    for start in range(first, end, size):
        rows = torch.arange(start, min(start + size, end))
        if asked is not None:
            rows = rows[asked[rows]]
        if len(rows):
            found[:, rows - first] = answer(rows, evidence.block(rows))
        work.tick((start + size - first) / (end - first))
    return found if world == 1 else _put_together(found, edges)


def _edges(num_rows: int, size: int, world: int) -> list[int]:
    """Where the stretch of each process begins, and where the last one ends: multiples of a block but for the end."""
    blocks = -(-num_rows // size)
    return [min(num_rows, blocks * rank // world * size) for rank in range(world + 1)]


def _put_together(own: Tensor, edges: list[int]) -> Tensor:
    lengths = [end - start for start, end in pairwise(edges)]
    whole = torch.empty(len(own), edges[-1])
    sent = torch.zeros(max(lengths))
    gathered = on_group_device(torch.empty(len(lengths) * len(sent)))
    for answers, stretch in zip(whole, own, strict=True):  # one at a time: a pool's worth of numbers each
        sent[: len(stretch)] = stretch
        all_gather(gathered, on_group_device(sent))
        parts = gathered.cpu().view(len(lengths), -1)
        torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)], out=answers)
    return whole
