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
_STEPS = 10  # between no noise and what the sure rows show
_SHARPNESS = (0.25, 0.4, 0.63, 1.0, 1.6, 2.5, 4.0, 6.3, 10.0)
_MOST = 0.5  # of the noise, above which all of it counts: a network learns by heart what is not let go of
_WRONG_LABEL = 0.04  # nats that calling a label wrong must explain: no probe's probabilities are quite true
_BY_CHANCE = 4.0  # nats that the likeliest of so many explanations is ahead by where a pool is small and clean
_OF_ALL, _MOST_BELIEVED, _ENOUGH = 0.65, 0.45, 6.0
"""Where this share at least of the sure rows' noise stands on all rows, and fewer labels than that are wrong on sure
ones, so many nats are enough: with two classes, or far between classes, a flattened probe explains wrong labels nearly
as well as noise does."""
_BY_FREQUENCY = 1.0  # nats that wrong labels as frequent as right ones must explain better than labels that are alike
_STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1e6)
_ROUNDING = 1e-6
_FLOOR = 1e-9  # of a probability, before its logarithm is taken
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
    rows = torch.bincount(labels, masses, minlength=num_classes).double()
    alike = _common_noise(wrong, rows.clamp(max=wrong * float(rows.sum()) / num_classes))
    (evidence, noise), (other, as_frequent) = (
        _by_evidence(counts, common) for common in (alike, _common_noise(wrong, rows))
    )
    return as_frequent if other > evidence + _BY_FREQUENCY else noise


def _by_evidence(counts: Tensor, common: Tensor) -> tuple[float, Tensor]:
    """How likely sure rows are where the noise of each class is drawn to a common one, nats, and it, `[C, C]`."""
    evidence, strength = max((_log_evidence(counts, strength * common), strength) for strength in _STRENGTHS)
    return evidence, (counts + strength * common) / (counts.sum(dim=1, keepdim=True) + strength)


def _common_noise(wrong: float, rows: Tensor) -> Tensor:
    """`[C, C]` the same share of wrong labels in every class, spread over the others in proportion to some rows `[C]`.

    Alike as far as there are such rows, for a label cannot stand wrongly on more than carry it: without that a few rare
    classes speak against all noise, since the wrong labels that they would have are not there. Or as often as labels
    occur, as where somebody guesses.
    """
    noise = rows.double().expand(len(rows), -1).clone().fill_diagonal_(0.0)
    noise *= wrong / noise.sum(dim=1, keepdim=True).clamp(min=torch.finfo(noise.dtype).tiny)
    return (noise + torch.diag(1 - noise.sum(dim=1))).float()  # where there is no other label, its own


class NoiseSearch:
    """How much of the noise that sure rows show is noise: features that cannot tell classes apart show some too.

    Explanations of all labels are held against each other by their likelihood, out of fold. Weak features: a label is
    drawn from the probe's own probabilities, as sharp as suits all rows, so that a surer probe is contradicted less.
    Noise: some labels are drawn from the noise, however sure the probe is. A probe may also have learned the noise; so
    its probabilities are tried as they are and with the noise unmixed.

    Args:
        noise: `[C, C]` of the sure rows.
    """

    def __init__(self, noise: Tensor) -> None:
        self._noise, self._shares = noise, torch.linspace(0, 1, _STEPS + 1)
        self._inverses = [unmixing(self._part(share)) for share in self._shares[1:]]

    @property
    def num_answers(self) -> int:
        """K, how many explanations there are."""
        return len(_SHARPNESS) * (2 * _STEPS + 1)

    def log_likelihoods(self, log_probs: Tensor, labels: Tensor) -> Tensor:
        """`[K, m]` of labels `[m]` under each explanation, from log-probabilities `[m, C]` of them."""
        probs, given = log_probs.exp(), self._noise.T[labels]
        found = [_explained(log_probs, labels, given, self._shares)]
        for share, inverse in zip(self._shares[1:], self._inverses, strict=True):
            clean = _unmixed(probs, inverse).clamp(min=_FLOOR).log()
            found.append(_explained(clean, labels, given, share[None]))
        return torch.cat(found, dim=1).clamp(min=torch.finfo(torch.float32).tiny).log().flatten(0, 1)

    def believed(self, log_likelihoods: Tensor, num_rows: int) -> Tensor:
        """`[C, C]` the noise by as much of it as is likely on the mean, all where that is most of it.

        The identity where it explains too little.

        Args:
            log_likelihoods: `[K]` summed over rows.
            num_rows: How many.
        """
        each = log_likelihoods.view(len(_SHARPNESS), -1).amax(dim=0)
        likely = torch.cat([each[:1], torch.maximum(each[1 : _STEPS + 1], each[_STEPS + 1 :])])
        best = int(likely.argmax())
        if float(likely[best] - likely[0]) <= self._needed(float(self._shares[best]), num_rows):
            return self._part(self._shares[0])
        mean = (likely.softmax(dim=0) * self._shares).sum().float()
        return self._part(mean if mean < _MOST else self._shares[-1])

    def _needed(self, share: float, num_rows: int) -> float:
        """Nats that a share of the noise must explain more than weak features do, to be believed of so many rows."""
        of_sure = 1 - float(own_shares(self._noise).mean())
        needed = max(_BY_CHANCE, _WRONG_LABEL * num_rows * share * of_sure)
        is_of_all = share >= _OF_ALL and of_sure < _MOST_BELIEVED
        return min(needed, _ENOUGH) if is_of_all else needed

    def _part(self, share: Tensor) -> Tensor:
        return torch.lerp(torch.eye(len(self._noise)), self._noise, share)


def _explained(log_probs: Tensor, labels: Tensor, given: Tensor, shares: Tensor) -> Tensor:
    """`[sharpness, shares, m]` probability of each label where a share of the noise is added to sharpened ones."""
    found = []
    for sharpness in _SHARPNESS:
        sharp = (sharpness * log_probs).softmax(dim=1)
        found.append(torch.lerp(own_class(sharp, labels), (sharp * given).sum(dim=1), shares[:, None]))
    return torch.stack(found)


def right_from_clean(probs: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
    """Bayes' rule for "the label is right", from the probabilities of the true class.

    Args:
        probs: `[M, C]`.
        labels: `[M]` int64, as given.
        noise: `[C, C]` from `label_noise`.

    Returns:
        `[M]` in 0..1; 1 throughout where nothing is wrong, or labels say nothing about one another.
    """
    if not tells(noise):
        return torch.ones(len(labels))
    given = (probs * noise.T[labels]).sum(dim=1)
    right = own_class(probs, labels) * noise.diagonal()[labels]
    return right / given.clamp(min=torch.finfo(given.dtype).tiny)


def right_from_noisy(probs: Tensor, labels: Tensor, noise: Tensor, inverse: Tensor | None = None) -> Tensor:
    """The same where a probe of noisy labels gives the probabilities of the *label*: wrong ones are unmixed first.

    `inverse` is `unmixing(noise)`, where it is known already.
    """
    if not tells(noise):
        return torch.ones(len(labels))
    clean = _unmixed(probs, unmixing(noise) if inverse is None else inverse)
    return right_from_clean(clean, labels, noise)


def _unmixed(probs: Tensor, inverse: Tensor) -> Tensor:
    return functional.normalize((probs @ inverse).clamp(min=0), p=1, dim=1)


def unmixing(noise: Tensor) -> Tensor:
    """`[C, C]` from probabilities of labels to those of true classes."""
    inverse: Tensor = torch.linalg.pinv(noise.double(), rtol=_LEAST_SINGULAR)
    return inverse.float()


def own_class(values: Tensor, labels: Tensor) -> Tensor:
    """`[M]`, of `[M, C]` what stands in the column of each row's label."""
    return values.gather(1, labels[:, None]).squeeze(1)


def tells(noise: Tensor) -> bool:
    """Whether any label is wrong, and labels still say something about one another."""
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
