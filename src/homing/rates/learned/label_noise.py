"""Wrong labels of a pool: which label stands on which class how often, and whether the one at hand is right.

Labels get mixed up in ways of their own (a fox is called a dog, seldom a car), so the noise is a matrix: row j is how
often each label stands on images of class j (Patrini et al. 2017). It is read off the rows that a probe is most sure
of (Northcutt et al. 2021, "Confident learning"): hard images are elsewhere, and do not count as wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SUREST = 0.1  # share of all rows
_STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1e6)
_ROUNDING = 1e-6
_LEAST_SINGULAR = 1e-2  # of the largest: directions that noise has nearly wiped out are not brought back


def label_noise(log_probs: Tensor, labels: Tensor) -> Tensor:
    """How often each given label stands on each true class.

    A class has few sure rows, so its row is drawn to noise that is common to all classes and all labels, as strongly
    as makes the sure rows' labels likeliest (Dirichlet-multinomial evidence): where noise is common, it is found to be.

    Args:
        log_probs: `[N, C]` of each row by a probe that has not seen it.
        labels: `[N]` int64, as given.

    Returns:
        `[C, C]` float32, true class by given label, rows sum to 1; the identity where sure rows carry no other label.
    """
    confidence, found = log_probs.max(dim=1)
    return noise_of_sure_rows(confidence, found, labels, log_probs.shape[1])


def noise_of_sure_rows(
    confidence: Tensor, found: Tensor, labels: Tensor, num_classes: int, masses: Tensor | None = None
) -> Tensor:
    """`label_noise` of what a probe finds.

    Args:
        confidence: `[N]` log-probability of the class that is found.
        found: `[N]` int64, that class.
        labels: `[N]` int64, as given.
        num_classes: C.
        masses: `[N]` rows that each row stands for; 1 each where not given.
    """
    counts = _labels_of_sure_rows(confidence, found, labels, num_classes, masses)
    wrong = 1 - float(counts.trace() / counts.sum())
    if wrong == 0:
        return torch.eye(num_classes)
    common = torch.full((num_classes, num_classes), wrong / (num_classes - 1)).fill_diagonal_(1 - wrong)
    strength = max(_STRENGTHS, key=lambda strength: _log_evidence(counts, strength * common))
    return (counts + strength * common) / (counts.sum(dim=1, keepdim=True) + strength)


def right_from_clean(probs: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
    """Bayes' rule for "the label is right", from the probabilities of the true class.

    Args:
        probs: `[M, C]`.
        labels: `[M]` int64, as given.
        noise: `[C, C]` from `label_noise`.

    Returns:
        `[M]` in 0..1; 1 throughout where nothing is wrong, or labels say nothing about one another.
    """
    if not _tells(noise):
        return torch.ones(len(labels))
    given = (probs * noise.T[labels]).sum(dim=1)
    right = own_class(probs, labels) * noise.diagonal()[labels]
    return right / given.clamp(min=torch.finfo(given.dtype).tiny)


def right_from_noisy(probs: Tensor, labels: Tensor, noise: Tensor, inverse: Tensor | None = None) -> Tensor:
    """The same where a probe of noisy labels gives the probabilities of the *label*: wrong ones are unmixed first.

    `inverse` is `unmixing(noise)`, where it is known already.
    """
    if not _tells(noise):
        return torch.ones(len(labels))
    clean = (probs @ (unmixing(noise) if inverse is None else inverse)).clamp(min=0)
    return right_from_clean(functional.normalize(clean, p=1, dim=1), labels, noise)


def unmixing(noise: Tensor) -> Tensor:
    """`[C, C]` from probabilities of labels to those of true classes."""
    inverse: Tensor = torch.linalg.pinv(noise.double(), rtol=_LEAST_SINGULAR)
    return inverse.float()


def own_class(values: Tensor, labels: Tensor) -> Tensor:
    """`[M]`, of `[M, C]` what stands in the column of each row's label."""
    return values.gather(1, labels[:, None]).squeeze(1)


def _tells(noise: Tensor) -> bool:
    own = own_shares(noise)
    return 1 / len(own) + _ROUNDING < float(own.mean()) < 1


def own_shares(noise: Tensor) -> Tensor:
    """How often each class carries its own label, without classes that the pool has no row of (rows of zeros)."""
    return noise.diagonal()[noise.any(dim=1)]


def _labels_of_sure_rows(
    confidence: Tensor, found: Tensor, labels: Tensor, num_classes: int, masses: Tensor | None
) -> Tensor:
    """`[C, C]` how many of the surest rows that are found to be of a class (row) carry each label (column)."""
    order = confidence.argsort(descending=True)
    if masses is None:
        sure, weights = order[: max(1, round(_SUREST * len(labels)))], None
    else:
        reached = masses[order].double().cumsum(0)
        sure = order[: max(1, int((reached <= _SUREST * reached[-1]).sum()))]
        weights = masses[sure].double() * (len(sure) / masses[sure].sum())  # as many rows as were looked at
    cells = torch.bincount(found[sure] * num_classes + labels[sure], weights, minlength=num_classes**2)
    return cells.view(num_classes, num_classes).float()


def _log_evidence(counts: Tensor, prior: Tensor) -> float:
    """Of each row of counts as a multinomial draw whose shares are Dirichlet with this prior, summed, in nats."""
    rows = torch.lgamma(prior.sum(dim=1)) - torch.lgamma((prior + counts).sum(dim=1))
    cells = torch.where(counts > 0, torch.lgamma(prior + counts) - torch.lgamma(prior), 0.0)
    return float(rows.double().sum() + cells.double().sum())
