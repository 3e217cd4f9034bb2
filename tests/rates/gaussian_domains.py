"""Evidence drawn from Gaussian domains: fast, and the truth is known."""

import torch
from torch import Tensor

from homing.rates import Evidence
from homing.rates.learned.consistency import pool_consistency
from homing.rates.learned.rate_model import DESCRIPTORS, Description, describe

WIDTH = 24
NUM_CLASSES = 4


def draw_domain(count: int, turn: float, shift: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features and labels of a domain: its classes sit elsewhere by `turn`, all of it is moved by `shift`."""
    labels = torch.arange(count) % NUM_CLASSES
    means = torch.zeros(NUM_CLASSES, WIDTH)
    means[:, :NUM_CLASSES] = 3 * torch.eye(NUM_CLASSES)
    turned = (1 - turn) * means + turn * means.roll(1, dims=0)
    offset = torch.zeros(WIDTH)
    offset[-4:] = shift
    noise = torch.randn(count, WIDTH, generator=generator)
    return turned[labels] + offset + noise, labels


def hidden_matches(
    *,
    seed: int,
    hidden: int = 80,
    others: int = 520,
    shots: int = 6,
    wrong: float = 0.0,
    mixed_up: bool = False,
    shift: float = 2.0,
) -> Evidence:
    """A target domain whose classes lie between the pool's, with `hidden` rows of it in the pool.

    A share `wrong` of the pool's labels is of any other class, or always of the next one where they are `mixed_up`.
    """
    generator = torch.Generator().manual_seed(seed)
    target, target_labels = draw_domain(shots * NUM_CLASSES, 0.6, shift, generator)
    matching, matching_labels = draw_domain(hidden, 0.6, shift, generator)
    other, other_labels = draw_domain(others, 0.0, 0.0, generator)
    labels = torch.cat([matching_labels, other_labels])
    clean = torch.rand(len(labels), generator=generator) >= wrong
    step = torch.randint(1, 2 if mixed_up else NUM_CLASSES, labels.shape, generator=generator)
    shuffled = (labels + step) % NUM_CLASSES
    return Evidence(
        source_features=torch.cat([matching, other]),
        source_labels=torch.where(clean, labels, shuffled),
        target_features=target,
        target_labels=target_labels,
        num_classes=NUM_CLASSES,
        matches=torch.arange(hidden + others) < hidden,
        clean=clean,
    )


def described(evidence: Evidence, names: tuple[str, ...] = DESCRIPTORS) -> Description:
    """The descriptors as the learner computes them."""
    return describe(evidence, names, pool_consistency(evidence, seed=0), seed=0)


def rare_classes(per_class: int, seed: int = 0) -> Evidence:
    """Six classes of a hundred rows, 30 % of them labelled wrong, and three of few rows that the target lacks."""
    generator = torch.Generator().manual_seed(seed)
    centres = 1.5 * torch.randn(9, 16, generator=generator)
    labels = torch.cat([torch.arange(6).repeat_interleave(100), torch.arange(6, 9).repeat_interleave(per_class)])
    features = centres[labels] + torch.randn(len(labels), 16, generator=generator)
    wrong = (torch.rand(len(labels), generator=generator) < 0.3) & (labels < 6)
    given = torch.where(wrong, torch.randint(0, 6, wrong.shape, generator=generator), labels)
    target_labels = torch.arange(6).repeat_interleave(4)
    shift = 3 * torch.randn(16, generator=generator)
    target = centres[target_labels] + torch.randn(len(target_labels), 16, generator=generator) + shift
    return Evidence(features, given, target, target_labels, 9, matches=torch.zeros_like(wrong), clean=given == labels)
