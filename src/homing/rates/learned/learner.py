"""Learn the rates of every source row from what the scan knows: descriptors, settings, judge, plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor

from homing.errors import DataError, HomingError
from homing.rates.learned.balance import LEAST_ROWS
from homing.rates.learned.consistency import LEAN
from homing.rates.learned.drawing import fitted_rows
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.facts import WIDTH, PoolFacts, consistency_of, find_pool_facts
from homing.rates.learned.groups import GROUP_CLASSES, groups_of
from homing.rates.learned.groups import whole as whole_group
from homing.rates.learned.judge import FOLDS, Verdict, judge
from homing.rates.learned.plan import RatePlan
from homing.rates.learned.projection import Projection
from homing.rates.learned.rate_model import (
    DESCRIPTORS,
    Description,
    Setting,
    candidate_settings,
    class_presence,
    describe,
    doubt_of,
    log_prior,
    rates_of,
    weight_ladder,
)
from homing.rates.learned.scorer import fit_scorer
from homing.rates.learned.work import reporting
from homing.rates.whole_numbers import whole

__all__ = ["JUDGED_ROWS", "NOTHING", "WIDTH", "doubted_labels", "learn_rates"]

JUDGED_ROWS = 20_000
"""Source rows that settings are judged on, for each `GROUP_CLASSES` classes; a larger pool is thinned for it."""

NOTHING = 0.005  # a share of matching rows below this cannot matter
UNIFORM = 0.01  # rates this close to 1 are called uniform
FAR = 1e6  # spreads of the source
NEAR_CHANCE = 0.95  # of the loss of guessing
DOUBTFUL = 5.0
"""A target label is doubted where, held out, another class is found to be this many times as likely."""


def learn_rates(
    evidence: Evidence,
    *,
    descriptors: Sequence[str] = DESCRIPTORS,
    folds: int = FOLDS,
    target_weight: float | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    pool: PoolFacts | None = None,
    device: torch.device | str = "cpu",
    together: bool = False,
) -> RatePlan:
    """Rates of every source row and the weight of the target, judged on held-out target images.

    Args:
        evidence: Features and labels of both pools.
        descriptors: What rates may depend on, out of `DESCRIPTORS`; none of them gives uniform rates.
        folds: Parts that the target is split into for judging, at least 2.
        target_weight: How often each target image counts; searched where not given.
        seed: Seed of folds and cross-fits. The same seed gives the same plan.
        progress: Called with the share done, 0..1, often; what it raises ends the work.
        pool: What the source tells by itself, from `pool_facts` with the same seed; found here where not given.
        device: Where matrix products of many rows run.
        together: Whether all processes of the group call this with the same arguments; they share what looks at every
            row.

    Returns:
        The plan; `judged` holds one row per setting.

    Raises:
        DataError: The target has fewer images than folds, or its features lie nowhere near the source's.
        ValueError: An unknown descriptor, fewer than 2 folds, or a negative target weight.
    """
    names, seed = _checked(descriptors, folds, target_weight), whole("seed", seed)
    settings = candidate_settings(names, evidence.num_source, evidence.num_target, target_weight)
    work = reporting(progress, device, together=together)
    if pool is None:
        labels = evidence.source_labels if "label_consistency" in names else None
        stretch, sets = work.part(0, 0.3), evidence.source_sets
        pool = find_pool_facts(evidence.source_features, labels, evidence.num_classes, seed, stretch, sets=sets)
    alone = consistency_of(pool, evidence.source_labels, evidence.num_classes)
    reduced = evidence.projected_by(pool.projection)
    _check_near(reduced.target_features, min(WIDTH, evidence.source_features.shape[1]))
    description = describe(reduced, names, alone, seed, work.part(0.3, 0.5))
    # Rows that match decide between settings: they are drawn more often, and stand for fewer rows each.
    leaning = 1 + LEAN * description.likeness.match
    rows, judged = reduced.drawn(
        _judged_rows_of(evidence.num_classes), by=description.likeness.log_ratio, weights=leaning
    )
    carried, pulse = alone.of(rows), replace(work.part(0.5, 0.5), together=False)
    verdict = judge(
        judged,
        torch.tensor([s.target_weight for s in settings]),
        lambda part: rates_of(settings, describe(part, names, carried, seed, pulse), part),
        log_prior=log_prior(settings, evidence.num_source, evidence.num_target),
        folds=folds,
        seed=seed,
        groups=groups_of(judged, leaning[rows]),
        work=work.part(0.5, 0.99),
    )
    plan = _plan(evidence, description, settings, verdict, pool.projection)
    work.tick(1.0)
    return plan


def _judged_rows_of(num_classes: int) -> int:
    """Descriptors are refitted for all classes in every fold, and need rows of all of them."""
    return min(fitted_rows(num_classes), JUDGED_ROWS * math.ceil(num_classes / GROUP_CLASSES))


def _checked(descriptors: Sequence[str], folds: int, target_weight: float | None) -> tuple[str, ...]:
    if isinstance(descriptors, str) or not isinstance(descriptors, Iterable):
        raise HomingError(f"descriptors is {descriptors!r}; give a list of names, of {', '.join(DESCRIPTORS)}")
    unknown = [name for name in descriptors if name not in DESCRIPTORS]
    if unknown:
        raise HomingError(f"Unknown descriptor {unknown[0]!r}; known are {', '.join(DESCRIPTORS)}.")
    whole("folds", folds, 2)  # judging on what is held out takes at least 2
    if target_weight is not None and not (isinstance(target_weight, Real) and 0 <= target_weight < math.inf):
        raise HomingError(f"target_weight is {target_weight!r}; allowed: finite numbers of at least 0, or None")
    return tuple(descriptors)


def _check_near(target: Tensor, width: int) -> None:
    """Refuse target rows so far out that no probe stays within float32 beside them.

    Args:
        target: `[n, w]` on the source's components, which have mean square 1 over `width` of them.
        width: As said.

    Raises:
        DataError: There are some.
    """
    far = (target.double().square().sum(dim=1) / width).sqrt()
    wrong = (~(far <= FAR)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"features of {len(wrong)} of {len(target)} target rows lie more than {FAR:,.0f} times as far out as the "
            f"source's do (first: row {row}, {float(far[row]):.1g} times): take the features of both pools from one "
            "model, and look at those rows"
        )


def _plan(
    evidence: Evidence,
    description: Description,
    settings: list[Setting],
    verdict: Verdict,
    projection: Projection,
) -> RatePlan:
    chosen = settings[verdict.chosen]
    rates = rates_of([chosen], description, evidence)[0]
    likeness, consistency = description.likeness, description.consistency
    top = weight_ladder(evidence.num_source, evidence.num_target)[-1]
    is_beyond = chosen.target_weight > top and any(setting.target_weight <= top for setting in settings)
    plan = RatePlan(
        rates=rates,
        target_weight=chosen.target_weight,
        phi={
            **chosen.as_dict(),
            "match_share": likeness.share,
            "wrong_share": consistency.wrong_share,
            "absent_class_rate": 1.0 if chosen.pools else float(class_presence(evidence).min()),
        },
        descriptors={
            "target_likeness": likeness.log_ratio,
            "label_consistency": consistency.log_probability,
        },
        match=likeness.match,
        right=consistency.right,
        judged=_judged_rows(settings, verdict),
        warnings=_warnings(rates, chosen, description, verdict, evidence, is_beyond=is_beyond),
    )
    if evidence.source_sets is not None:  # one class cannot be suggested, nor one probe score new rows
        return plan
    return replace(
        plan,
        suggested=torch.where(consistency.right < 0.5, consistency.best.long(), evidence.source_labels),
        doubted=doubted_labels(verdict.held_out, evidence.target_labels),
        doubt=doubt_of(chosen, description, evidence),
        scorer=fit_scorer(
            likeness,
            consistency,
            (projection.matrix, projection.offset),
            evidence.source_labels,
            rates,
            num_classes=evidence.num_classes,
            match_lift=chosen.match_lift,
            let_go=chosen.let_go,
        ),
    )


def doubted_labels(held_out: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Rows whose label the held-out folds contradict, most contradicted first, each with the class that they find.

    Args:
        held_out: `[n, C]` log-probabilities of images that the fit has not seen.
        labels: `[n]` int64.
    """
    likeliest, found = held_out.max(dim=1)
    excess = likeliest - held_out.gather(1, labels[:, None]).squeeze(1)
    doubted = [row for row in excess.argsort(descending=True).tolist() if excess[row] > math.log(DOUBTFUL)]
    return [(row, int(found[row])) for row in doubted]


def _judged_rows(settings: list[Setting], verdict: Verdict) -> list[dict[str, float | bool]]:
    columns = {
        "nll": verdict.losses.mean(dim=1).tolist(),
        "standard_error": verdict.paired_errors.tolist(),
        "posterior": verdict.posterior.tolist(),
        "chosen": [index == verdict.chosen for index in range(len(settings))],
    }
    return [
        {**setting.as_dict(), **{name: values[index] for name, values in columns.items()}}
        for index, setting in enumerate(settings)
    ]


def _warnings(
    rates: Tensor, chosen: Setting, description: Description, verdict: Verdict, evidence: Evidence, *, is_beyond: bool
) -> list[str]:
    warnings, num_classes = [], evidence.num_classes - (evidence.source_sets is not None)
    presence = class_presence(evidence)
    if (presence < 1).any():
        count = "as much as" if chosen.pools else f"{float(presence.min()):.3f} times as much as"
        warnings.append(
            f"{int((presence < 1).sum())} of {num_classes} classes have no target image: their source samples "
            f"count {count} others; add target images of the classes that you need."
        )
    if description.likeness.share < NOTHING:
        warnings.append("Nothing in the source pool looks like the target: no row is lifted.")
    if is_beyond:
        source, target = float(rates.double().sum()), chosen.target_weight * evidence.num_target
        warnings.append(
            "The source hardly helps: held-out target images are predicted better where all of it has "
            f"{100 * source / (source + target):.2g} % of the weight. Look at its labels, and compare with target_only."
        )
    if torch.allclose(rates, torch.ones_like(rates), atol=UNIFORM):
        warnings.append(_why_uniform(chosen, description))
    loss, chance = float(verdict.losses[verdict.chosen].mean()), _chance(evidence)
    if num_classes > 1 and loss > NEAR_CHANCE * chance:
        warnings.append(
            f"Held-out target images are predicted no better than by guessing ({loss:.2f} nats, chance {chance:.2f}): "
            "look at the target's labels, and at the features: they may not tell the classes apart, be of very unlike "
            "scales, or lie far out in some rows of the source."
        )
    return warnings


def _why_uniform(chosen: Setting, description: Description) -> str:
    share, doubted = description.likeness.share, float((description.consistency.right < 0.5).float().mean())
    some_match = NOTHING <= share < 1
    if not some_match and not doubted:
        return "Rates are uniform: the pool holds nothing to lift and no label to doubt."
    is_judged = chosen.pools or (chosen.match_lift == 1 and not doubted)
    why = (
        "held-out target images say not to act on it"
        if is_judged
        else f"no class may rest on {LEAST_ROWS} rows or fewer"
    )
    return (
        f"Rates are uniform, although {100 * share:.0f} % of the source look like the target and {100 * doubted:.0f} % "
        f"of its labels are doubted: {why}."
    )


def _chance(evidence: Evidence) -> float:
    """Loss of guessing, nats an image: every class alike, or each judged label as often as the target has it."""
    if evidence.target_sets is None:
        return math.log(evidence.num_classes)
    shares = evidence.target_sets[:, whole_group(evidence).classes].double().mean(dim=0)
    return float(torch.special.entr(shares).sum() + torch.special.entr(1 - shares).sum())
