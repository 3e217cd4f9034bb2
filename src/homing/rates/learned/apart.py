"""Rates where source and target share no labels: other classes, none in the source, or none in the target.

What remains is how much a source image looks like the target, and whether its own label fits the rest of its pool.
No held-out target image can say which setting serves it, so nothing is judged: the numbers are those that the judge's
prior holds for likeliest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from homing.rates.learned.balance import spread_within_classes
from homing.rates.learned.blocks import FeatureBlocks
from homing.rates.learned.consistency import label_consistency, neutral_consistency
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.facts import PoolFacts, consistency_of, find_pool_facts
from homing.rates.learned.learner import NOTHING
from homing.rates.learned.likeness import target_likeness
from homing.rates.learned.plan import RatePlan
from homing.rates.learned.rate_model import DESCRIPTORS, Setting, candidate_settings, log_prior, weight_ladder
from homing.rates.learned.scorer import fit_scorer
from homing.rates.learned.work import reporting


def rates_apart(
    source_features: Tensor | FeatureBlocks,
    source_labels: Tensor | None,
    num_classes: int,
    target_features: Tensor,
    *,
    descriptors: Sequence[str] = DESCRIPTORS,
    target_weight: float | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
    pool: PoolFacts | None = None,
    device: torch.device | str = "cpu",
    together: bool = False,
) -> RatePlan:
    """Rates from target likeness, and from the source's own label consistency where it has labels.

    Args:
        source_features: `[N, D]` float32, or blocks of them.
        source_labels: `[N]` int64 in the source's own classes; None where it has none.
        num_classes: Of the source; 1 where it has no labels.
        target_features: `[n, D]` float32.
        descriptors: What rates may depend on, out of `DESCRIPTORS`.
        target_weight: How often each target image counts; None: the likeliest a priori.
        seed: Of the cross-fits.
        progress: Called with the share done, 0..1, often; what it raises ends the work.
        pool: What the source tells by itself, from `pool_facts` with the same seed; found here where not given.
        device: Where matrix products of many rows run.
        together: Whether all processes of the group call this with the same arguments; they share what looks at every
            row.

    Returns:
        The plan; nothing in it was judged, and its first warning says what that cannot see.

    Raises:
        DataError: As `Evidence`.
    """
    nobody = torch.zeros(len(source_features), dtype=torch.int64)
    unlabelled = torch.zeros(len(target_features), dtype=torch.int64)
    domains = Evidence(source_features, nobody, target_features, unlabelled, num_classes=1)
    names = tuple(name for name in descriptors if source_labels is not None or name == "target_likeness")
    setting = likeliest_setting(names, domains.num_source, domains.num_target, target_weight)
    work = reporting(progress, device, together=together)
    labels = nobody if source_labels is None else source_labels
    if pool is None:
        asked = labels if "label_consistency" in names else None
        pool = find_pool_facts(source_features, asked, num_classes, seed, work.part(0, 0.6))
    domains = domains.projected_by(pool.projection)
    likeness = target_likeness(domains, seed, work.part(0.6, 0.7))
    consistency = neutral_consistency(labels, num_classes)
    if "label_consistency" in names:
        kinds = Evidence(domains.source_features, labels, domains.target_features, unlabelled, num_classes)
        alone = consistency_of(pool, labels, num_classes)
        consistency = label_consistency(
            kinds, likeness.match, alone, seed, target_has_labels=False, work=work.part(0.7, 1)
        )
    matching = 1 + (setting.match_lift - 1) * likeness.match
    rates, _ = spread_within_classes(matching * consistency.right**setting.let_go, labels, num_classes)
    scorer = fit_scorer(
        likeness,
        consistency,
        (pool.projection.matrix, pool.projection.offset),
        labels,
        rates,
        num_classes=num_classes,
        match_lift=setting.match_lift,
        let_go=setting.let_go,
    )
    known = {"target_likeness": likeness.log_ratio}
    if "label_consistency" in names:
        known["label_consistency"] = consistency.log_probability
    return RatePlan(
        rates=rates,
        target_weight=setting.target_weight,
        phi={**setting.as_dict(), "match_share": likeness.share, "wrong_share": consistency.wrong_share},
        descriptors=known,
        warnings=_warnings(likeness.share, source_labels is not None),
        suggested=torch.where(consistency.right < 0.5, consistency.best.long(), labels),
        scorer=scorer,
    )


def even_weight(num_source: int, num_target: int) -> float:
    """How often a target image counts beside a source of other classes: together as much as the source, 10 at least.

    Source rows teach nothing of the target's classes, so that the target must carry its own outputs.
    """
    return weight_ladder(num_source, num_target)[-1]


def likeliest_setting(names: tuple[str, ...], num_source: int, num_target: int, target_weight: float | None) -> Setting:
    """The candidate that the judge's prior likes best."""
    settings = candidate_settings(names, num_source, num_target, target_weight)
    return settings[int(log_prior(settings, num_source, num_target).argmax())]


def _warnings(share: float, has_labels: bool) -> list[str]:
    basis = "likeness to the target" + (" and the source's own label consistency" if has_labels else " alone")
    found = [
        f"Rates come from {basis}: source and target share no labels, so no held-out target image could say whether"
        " they help, and which classes the target needs more of is not known. Nothing was judged."
    ]
    if share < NOTHING:
        found.append("Nothing in the source pool looks like the target: no row is lifted.")
    return found
