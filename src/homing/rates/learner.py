"""Learn the rates of every source row from what the scan knows: descriptors, settings, judge, plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from homing.rates.descriptors import pool_consistency
from homing.rates.evidence import Evidence
from homing.rates.judge import FOLDS, Verdict, judge
from homing.rates.plan import RatePlan
from homing.rates.rate_model import DESCRIPTORS, Description, Setting, candidate_settings, describe, log_prior, rates_of

WIDTH = 128
"""Principal components that probes work on."""

_NOTHING = 0.005  # a share of matching rows or of wrong labels below this cannot matter


def learn_rates(
    evidence: Evidence,
    *,
    descriptors: Sequence[str] = DESCRIPTORS,
    folds: int = FOLDS,
    target_weight: float | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> RatePlan:
    """Rates of every source row and the weight of the target, judged on held-out target images.

    Args:
        evidence: Features and labels of both pools.
        descriptors: What rates may depend on, out of `DESCRIPTORS`; none of them gives uniform rates.
        folds: Parts that the target is split into for judging, at least 2.
        target_weight: How often each target image counts; searched where not given.
        seed: Seed of folds and cross-fits. The same seed gives the same plan.
        progress: Called with the share done, 0..1.

    Returns:
        The plan; `judged` holds one row per setting.

    Raises:
        DataError: The target has fewer images than folds.
        ValueError: An unknown descriptor, fewer than 2 folds, or a negative target weight.
    """
    names = _checked(descriptors, folds, target_weight)
    settings = candidate_settings(names, evidence.num_source, evidence.num_target, target_weight)
    reduced = evidence.projected(WIDTH)
    pool = pool_consistency(reduced, seed)
    verdict = judge(
        reduced,
        torch.tensor([setting.target_weight for setting in settings]),
        lambda part: rates_of(settings, describe(part, names, pool, seed), part),
        log_prior=log_prior(settings, evidence.num_source, evidence.num_target),
        folds=folds,
        seed=seed,
        progress=progress,
    )
    return _plan(evidence, describe(reduced, names, pool, seed), settings, verdict)


def _checked(descriptors: Sequence[str], folds: int, target_weight: float | None) -> tuple[str, ...]:
    unknown = [name for name in descriptors if name not in DESCRIPTORS]
    if unknown:
        raise ValueError(f"Unknown descriptor {unknown[0]!r}; known are {', '.join(DESCRIPTORS)}.")
    if folds < 2:
        raise ValueError(f"folds is {folds}: judging on held-out images takes at least 2.")
    if target_weight is not None and target_weight < 0:
        raise ValueError(f"target_weight is {target_weight}: it must be at least 0.")
    return tuple(descriptors)


def _plan(evidence: Evidence, description: Description, settings: list[Setting], verdict: Verdict) -> RatePlan:
    chosen = settings[verdict.chosen]
    rates = rates_of([chosen], description, evidence)[0]
    likeness, consistency = description.likeness, description.consistency
    return RatePlan(
        rates=rates,
        target_weight=chosen.target_weight,
        phi={**chosen.as_dict(), "match_share": likeness.share, "wrong_share": consistency.wrong_share},
        descriptors={
            "target_likeness": likeness.log_ratio,
            "label_consistency": consistency.log_probability,
        },
        judged=_judged_rows(settings, verdict),
        warnings=_warnings(rates, chosen, description),
    )


def _judged_rows(settings: list[Setting], verdict: Verdict) -> list[dict[str, float | bool]]:
    means, errors = verdict.losses.mean(dim=1).tolist(), verdict.paired_errors.tolist()
    return [
        {**setting.as_dict(), "nll": mean, "standard_error": error, "chosen": index == verdict.chosen}
        for index, (setting, mean, error) in enumerate(zip(settings, means, errors, strict=True))
    ]


def _warnings(rates: torch.Tensor, chosen: Setting, description: Description) -> list[str]:
    warnings = []
    if description.likeness.share < _NOTHING:
        warnings.append("Nothing in the source pool looks like the target: no row is lifted.")
    if torch.allclose(rates, torch.ones_like(rates), atol=0.01):
        warnings.append("Rates are uniform: nothing that was tried served held-out target images better.")
    return warnings
