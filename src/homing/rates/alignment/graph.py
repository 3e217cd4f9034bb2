"""What autograd's graph says before a backward pass: which leaves it reaches, and how often an output is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def count_uses(roots: Sequence[Tensor], nodes: Sequence[Any]) -> tuple[list[int], set[int]]:
    """Walk the graph once.

    Args:
        roots: Where the backward pass starts.
        nodes: Nodes (`grad_fn`) of interest.

    Returns:
        The number of ways on which gradients come into each node; the `id`s of the leaf tensors that are reached.
    """
    uses = dict.fromkeys(nodes, 0)
    leaves: set[int] = set()
    seen: set[Any] = set()  # holds the nodes, so that each keeps its one Python object
    waiting = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen.update(waiting)
    for node in waiting:
        if node in uses:
            uses[node] += 1
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(id(leaf))
        for following, _ in node.next_functions:
            if following is None:
                continue
            if following in uses:
                uses[following] += 1
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return [uses[node] for node in nodes], leaves
