"""The penalty of a head that is the whole model: the one under which rows that were left out are likeliest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from homing.rates.learned.folds import directions_of_images, folds_of_images
from homing.rates.learned.labelled import Labelled
from homing.rates.learned.probe import with_bias
from homing.rates.learned.projection import fit_projection
from homing.rates.learned.work import ALONE, Work

_STRONGEST, _STEP, _COUNT = 1.5, 10**-0.5, 11  # down to 1.5e-5, on features of unit mean square
_FOLDS, _WIDTH = 5, 256
_MOST_SCORES = 4_000_000  # rows times classes times folds that are fitted: beyond, fewer folds are left out


def held_out_penalty(
    features: Tensor, masses: Tensor, is_target: Tensor, num_outputs: int, labelled: Labelled, work: Work = ALONE
) -> tuple[float, Tensor | None]:
    """The penalty with the least loss on folds that each fit leaves out: of rows by their masses, and of the target.

    From strong to weak, each fit begins where the last one ended; two rises in a row end the search. Looked for on the
    leading principal components, which turn the features and leave the penalty what it is.

    Args:
        features: `[N, D]`, of mean 0.
        masses: `[N]`, how much each row counts, in the fits and in the one half of the score.
        is_target: `[N]` bool; such rows are the other half.
        num_outputs: C.
        labelled: What the rows are labelled with.
        work: Told of.

    Returns:
        The penalty, on features as they are, and weights to start from, `[D + 1, C]`; a strong one (on features of unit
        mean square) and None where there are too few rows to leave some out.
    """
    if len(features) < 2 * _FOLDS:
        return _STRONGEST, None
    directions = normalize(fit_projection(features, _WIDTH).matrix, dim=0)
    columns, spread = with_bias(features @ directions), float(features.square().mean())
    folds = folds_of_images(features @ directions_of_images(features.shape[1], seed=0), _FOLDS, seed=0)
    count = max(1, min(_FOLDS, _MOST_SCORES // (len(features) * num_outputs)))
    held = [(folds == fold).nonzero().squeeze(1) for fold in range(count)]
    judged = masses / masses.sum() + is_target / is_target.sum().clamp(min=1)
    weightings = torch.stack([masses.where(folds != fold, 0.0) for fold in range(count)])
    found: list[float] = []
    best, probes = (_STRONGEST, torch.empty(0)), None
    for number in range(_COUNT):
        penalty = spread * _STRONGEST * _STEP**number
        step = work.part(number / _COUNT, (number + 1) / _COUNT)
        probes = labelled.fit(columns, weightings, penalty, probes, work=step)
        pairs = zip(held, probes, strict=True)
        found.append(
            sum(float((labelled.losses(columns[rows] @ probe, rows) * judged[rows]).sum()) for rows, probe in pairs)
        )
        if found[-1] == min(found):
            best = penalty, probes.mean(dim=0)
        elif number > 1 and found[-1] > found[-2] > found[-3]:
            break
    penalty, probe = best
    return penalty, torch.cat([directions @ probe[:-1], probe[-1:]])
