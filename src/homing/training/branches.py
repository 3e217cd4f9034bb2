"""Several fine-tunings from one start and by one plan, and the average of their weights (Wortsman et al. 2022).

It is better than each of them, and depends less on the luck of a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import torch
from torch import nn

from homing.rates.learned.guesses import Guesses
from homing.session import Session
from homing.training.fit import Fit, FitSettings, Fitted, fit
from homing.training.material import Material
from homing.training.teacher import Teacher


def fit_branches(
    session: Session, material: Material, shared: FitSettings, one: Fit, count: int, guesses: Guesses | None = None
) -> Fitted:
    """Fine-tune `count` times, each in an order of its own, and average.

    Where there are unlabelled images, and several fine-tunings, the first does without them and guesses for the others.

    Args:
        session: Of the run.
        material: Of the run.
        shared: What all fits share.
        one: The fine-tuning; the first branch has its name, and so its checkpoints.
        count: At least 1.
        guesses: What is thought of the unlabelled images before training, as the plan has it; None: it has none.

    Returns:
        The mean of the weights and of the rates; visits and gradients are those of all branches together.
    """
    plan, settings = one.plan, one.settings
    if guesses is None or count == 1 or shared.head_init != "probe":  # whose head is linear
        branches = (fit(session, material, shared, _branch(one, number, count)) for number in range(1, count + 1))
        return replace(_mean(branches), guesses=guesses)
    alone = replace(one, plan=plan.with_guesses(torch.empty(0, dtype=torch.int64), torch.empty(0)))
    first = fit(session, material, shared, _branch(alone, 1, count))
    teacher = Teacher(session, material, first.model, settings.precision, settings.num_steps * settings.batch_size)
    guesses = teacher.guesses(guesses, one.target, plan.phases[-1].target_weight)
    taught = replace(one, plan=plan.with_guesses(guesses.labels, guesses.rates))
    others = (fit(session, material, shared, _branch(taught, number, count)) for number in range(2, count + 1))
    return replace(_mean(chain([first], others)), guesses=guesses)


def _mean(fits: Iterable[Fitted]) -> Fitted:
    """The mean of fits, each of which is made when its turn comes: two models in memory, however many there are."""
    turns = iter(fits)
    mean = next(turns)
    for number, other in enumerate(turns, start=2):
        mean = _joined(mean, other, 1 / number)
    return mean


def _joined(mean: Fitted, other: Fitted, share: float) -> Fitted:
    """The mean of several fits and one more, which counts as `share`."""
    draw_to(mean.model, other.model, share)
    alignments = None
    if mean.alignments is not None and other.alignments is not None:
        alignments = torch.lerp(mean.alignments, other.alignments, share)
    return Fitted(
        mean.model,
        torch.lerp(mean.rates, other.rates, share),
        mean.visits + other.visits,
        alignments,
        mean.gradients + other.gradients,
        mean.guessed + other.guessed if len(mean.guessed) else other.guessed,
        mean.branches + 1,
    )


@torch.no_grad()
def draw_to(mean: nn.Module, model: nn.Module, share: float) -> None:
    """Move the floating-point parameters and buffers of a model towards those of another of its form.

    Args:
        mean: Is changed; the mean of k models where `share` is 1 / k and the other is the k-th.
        model: The other.
        share: Of the way.
    """
    values = model.state_dict()
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            value.lerp_(values[name], share)


def _branch(one: Fit, number: int, count: int) -> Fit:
    if count == 1:
        return one
    named = replace(one, title=f"{one.title}, branch {number} of {count}")
    if number == 1:
        return named
    settings = replace(one.settings, seed=branch_seed(one.settings.seed, number))
    return replace(named, name=f"{one.name}-branch-{number}", settings=settings)


def branch_seed(seed: int, number: int) -> int:
    """Seed of a branch of a run, 0 .. 2^31 - 1; the first one's is the run's.

    Args:
        seed: Of the run.
        number: Of the branch, from 1.
    """
    digest = hashlib.sha256(f"{seed} branch {number}".encode()).digest()
    return seed if number == 1 else int.from_bytes(digest[:4], "big") // 2
