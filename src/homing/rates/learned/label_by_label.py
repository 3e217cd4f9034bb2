"""How well labels agree with the pool where a row has several: a label at a time, each as a question of yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from homing.rates.learned.consistency import Consistency, label_consistency, pool_consistency
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.work import ALONE, Work


def pool_label_by_label(evidence: Evidence, seed: int, work: Work = ALONE) -> Consistency:
    """`pool_consistency` of every label, and of whole sets."""
    each = [
        pool_consistency(part.within_source_classes(), seed, work.part(label / total, (label + 1) / total)).spread_over(
            part.source_classes, 2
        )
        for label, total, part in _questions(evidence)
    ]
    return _of_sets(each, evidence)


def lean_label_by_label(
    evidence: Evidence, match: Tensor, pool: Consistency, seed: int, work: Work = ALONE
) -> Consistency:
    """`label_consistency` of every label, and of whole sets; arguments as there."""
    each = [
        label_consistency(part, match, pool.each[label], seed, work=work.part(label / total, (label + 1) / total))
        for label, total, part in _questions(evidence)
    ]
    return _of_sets(each, evidence)


def _questions(evidence: Evidence) -> list[tuple[int, int, Evidence]]:
    """Number of each label, of how many, and the evidence of whether a row has it: class 1 of two."""
    source, target = evidence.source_sets, evidence.target_sets
    assert source is not None
    assert target is not None
    return [
        (
            label,
            source.shape[1],
            replace(
                evidence,
                source_labels=own.long(),
                target_labels=theirs.long(),
                num_classes=2,
                source_sets=None,
                target_sets=None,
            ),
        )
        for label, (own, theirs) in enumerate(zip(source.T, target.T, strict=True))
    ]


def _of_sets(each: Sequence[Consistency], evidence: Evidence) -> Consistency:
    """A row is as right as its labels are on average, those among them that it lacks: the others still teach.

    By the most doubtful of them, a pool without wrong labels would be doubted, and more so the more labels there are.
    """
    return Consistency(
        log_probability=torch.stack([one.log_probability for one in each]).sum(dim=0),
        right=torch.stack([one.right for one in each]).mean(dim=0),
        noise=torch.eye(evidence.num_classes),
        best=evidence.source_labels.to(torch.int32),
        each=tuple(each),
    )
