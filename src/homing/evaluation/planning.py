"""From what is known before training to a method's plan: how much each row counts, phase by phase."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from homing.errors import DivergedError
from homing.evaluation.baselines import BASELINES
from homing.evaluation.pool_facts import kept_pool_facts
from homing.evaluation.training_plans import training_plan
from homing.methods import METHODS
from homing.outputs.artefact import digest_of
from homing.pools.order import Rows
from homing.rates.learned.apart import even_weight, rates_apart
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.facts import PoolFacts, pool_facts
from homing.rates.learned.guesses import guess_labels
from homing.rates.learned.learner import learn_rates
from homing.rates.learned.plan import RatePlan
from homing.rates.learned.wanted import wanted_labels
from homing.rates.learned.work import reporting
from homing.session import Session
from homing.training.learned import remembered
from homing.training.material import FeatureBlocks, Material, RowsBetween
from homing.training.plan import TrainingPlan

_NAMED = 1_000  # samples that divergence.json lists


@dataclass(frozen=True)
class PlanSettings:
    """How methods plan. Names as in the recipe.

    Attributes:
        target_weight: How often each target image counts; None: judged on the target's folds.
        descriptors: What rates may depend on.
        folds: Of the target, that judge rates.
        apply: sample or weight.
        residuals: Whether learned rates go on moving by each instance's alignments.
        doubts: Whether the loss of learned rates allows for labels that may be wrong.
        trains: Whether anything is trained by the plan.
        shares_labels: Whether source and target are labelled with the same classes.
        source_has_labels: Whether the source is labelled at all.
        truth: Columns of the source that hold the truth of a simulated study (matches, clean); None: unknown.
        recipe_digest: Of the whole recipe.
    """

    target_weight: float | None = None
    descriptors: tuple[str, ...] = ("target_likeness", "label_consistency")
    folds: int = 5
    apply: str = "sample"
    residuals: bool = False
    doubts: bool = False
    trains: bool = True
    shares_labels: bool = True
    source_has_labels: bool = True
    truth: tuple[str, str] | None = None
    recipe_digest: str = ""


@dataclass(frozen=True)
class Planned:
    """A method's plan for one set of target images: how to train, and what was found out before training."""

    name: str
    training: TrainingPlan
    rates: RatePlan
    seconds: float = 0.0


@dataclass(frozen=True)
class Planner:
    """Plans the methods of one run; what takes long is remembered on disk."""

    session: Session
    material: Material
    settings: PlanSettings

    def plan(self, name: str, target: Rows) -> Planned:
        """Plan a method with these rows of the target alone, int64."""
        started, method, settings = time.monotonic(), METHODS[name], self.settings
        rates = self.rates(name, target)
        training = training_plan(
            method, rates, apply=settings.apply, residuals=settings.residuals, doubts=settings.doubts
        )
        if method.source_share:
            rates = replace(rates, rates=training.phases[-1].rates)
        return Planned(name, training, rates, time.monotonic() - started)

    def rates(self, name: str, target: Rows) -> RatePlan:
        """What a method knows before training."""
        method, weight, seed = METHODS[name], self.settings.target_weight, self.session.seed
        if method.plans_by == "learned":
            return self._remembered("hierarchical", target, lambda: self._learned(target), together=True)
        planner = BASELINES[method.plans_by]
        if method.basis == "weight" and weight is None and not self.settings.shares_labels:
            weight = even_weight(len(self.material.problem.source), len(target))
        if method.basis == "nothing" or (method.basis == "weight" and weight is not None):
            return planner(self._sizes(target), seed=seed, target_weight=weight)
        return self._remembered(
            method.plans_by, target, lambda: planner(self.evidence(target), seed=seed, target_weight=weight)
        )

    def evidence(self, target: Rows) -> Evidence:
        """What rates may be learned from: the source, and these rows of the target alone."""
        problem, labels, features = self.material.problem, self.material.groups, self._features()
        matches = clean = None
        if self.settings.truth is not None:
            matches, clean = (torch.from_numpy(problem.source.flags(column)) for column in self.settings.truth)
        return Evidence(
            source_features=RowsBetween(features, 0, len(problem.source)),
            source_labels=labels[: len(problem.source)],
            target_features=features.rows(torch.from_numpy(target)),
            target_labels=labels[target],
            num_classes=self.material.num_groups,
            matches=matches,
            clean=clean,
            source_sets=self.material.sets_of(problem.source_rows),
            target_sets=self.material.sets_of(target),
        )

    def identity(self, target: Rows) -> dict[str, str]:
        """What is planned from: digests of recipe, classes and pools (their order too), and the target's rows."""
        problem = self.material.problem
        return {
            "recipe": self.settings.recipe_digest,
            "classes": digest_of(*problem.classes, *problem.own_classes),
            "source": problem.source.identity(),
            "target": problem.target.identity(),
            "fold": fold_digest(target),
        } | ({} if problem.unlabelled is None else {"unlabelled": problem.unlabelled.identity()})

    # ---- how -----------------------------------------------------------------------------------------------------

    def _features(self) -> FeatureBlocks:
        features = self.material.features
        assert features is not None, "a method that looks at features was planned without a scan"
        return features

    def _sizes(self, target: Rows) -> Evidence:
        """For methods that look at no feature and no label: two numbers of rows."""
        source, few = (
            torch.zeros(count, dtype=torch.int64) for count in (len(self.material.problem.source), len(target))
        )
        return Evidence(source[:, None].float(), source, few[:, None].float(), few, num_classes=1)

    def _remembered(
        self, name: str, target: Rows, learn: Callable[[], RatePlan], *, together: bool = False
    ) -> RatePlan:
        """What was learned, the same in every process; an earlier attempt's where the run goes on."""
        session = self.session
        plan = remembered(
            session.accelerator,
            session.checkpoints / place_of_rates(name, target),
            self.identity(target) | {"method": name},
            learn,
            resume=True,  # another method of this run may have learned them, too
            allow_change=session.allow_change,
            together=together,
        )
        source = self.material.problem.source
        for what, values in {"rates": plan.rates, **plan.descriptors}.items():
            stop_if_not_finite(what, values, lambda row: source.ids[row])
        if plan.guesses is not None and (unlabelled := self.material.problem.unlabelled) is not None:
            ids = unlabelled.ids
            stop_if_not_finite("rates of unlabelled images", plan.guesses.rates, lambda row: ids[row])
        return plan

    def _learned(self, target: Rows) -> RatePlan:
        """The hierarchical rates."""
        settings = self.settings
        if not settings.shares_labels:
            return self._learned_apart(target)
        whole = len(self.material.problem.target)
        # a fold of the evaluation leaves fewer images than the recipe's folds were chosen for
        folds = settings.folds if len(target) == whole else min(settings.folds, len(target))
        with self.session.shares("learn rates") as report:
            evidence = self.evidence(target)
            has_labels = "label_consistency" in settings.descriptors
            pool = self._pool(has_labels, evidence, lambda share: report(0.3 * share))
            end = 1.0 if self.material.problem.unlabelled is None else 0.9
            plan = learn_rates(
                evidence,
                descriptors=settings.descriptors,
                folds=folds,
                target_weight=settings.target_weight,
                seed=self.session.seed,
                progress=lambda share: report(0.3 + (end - 0.3) * share),
                pool=pool,
                device=self.session.device,
                together=True,
            )
            return self._with_guesses(plan, evidence, pool, lambda share: report(end + (1 - end) * share))

    def _with_guesses(
        self, plan: RatePlan, evidence: Evidence, pool: PoolFacts, progress: Callable[[float], None]
    ) -> RatePlan:
        """The plan with what is thought of the unlabelled images, where there are any."""
        problem = self.material.problem
        if problem.unlabelled is None:
            return plan
        unlabelled = RowsBetween(self._features(), int(problem.unlabelled_rows[0]), len(problem.unlabelled))
        guesses = guess_labels(
            evidence,
            plan.rates,
            plan.target_weight,
            unlabelled,
            projection=pool.projection,
            seed=self.session.seed,
            work=reporting(progress, self.session.device, together=True),
        )
        wanted = wanted_labels(guesses, unlabelled, pool.projection, seed=self.session.seed)
        progress(1.0)
        return replace(plan, guesses=guesses, wanted=wanted)

    def _pool(self, has_labels: bool, evidence: Evidence, progress: Callable[[float], None]) -> PoolFacts:
        """What the source tells by itself, found once for every target, fold and attempt."""
        made_from = {
            "source": self.material.problem.source.identity(),
            "classes": digest_of(*self.material.problem.source_classes),
            "labels": str(has_labels),
            "seed": str(self.session.seed),
        }
        labels = evidence.source_labels if has_labels else None
        return kept_pool_facts(
            self.session,
            self.material.kept,
            made_from,
            lambda: pool_facts(
                evidence.source_features,
                labels,
                evidence.num_classes,
                sets=evidence.source_sets,
                seed=self.session.seed,
                progress=progress,
                device=self.session.device,
                together=True,
            ),
        )

    def _learned_apart(self, target: Rows) -> RatePlan:
        """Rates where source and target share no labels."""
        problem, settings, features = self.material.problem, self.settings, self._features()
        weight = settings.target_weight
        if settings.trains and not problem.has_target_labels:
            weight = 0.0
        elif settings.trains and weight is None:
            weight = even_weight(len(problem.source), len(target))
        return rates_apart(
            RowsBetween(features, 0, len(problem.source)),
            torch.from_numpy(problem.source_labels) if settings.source_has_labels else None,
            len(problem.source_classes),
            features.rows(torch.from_numpy(target)),
            descriptors=settings.descriptors,
            target_weight=weight,
            seed=self.session.seed,
            device=self.session.device,
            together=True,
        )


def place_of_rates(name: str, target: Rows) -> Path:
    """Where what was learned before a training is remembered, among the checkpoints of a run.

    Args:
        name: As a method's `plans_by`; of learned rates the method.
        target: Rows that it was learned from.
    """
    return Path("rates") / f"{name}-{fold_digest(target)[:12]}"


def fold_digest(target: Rows) -> str:
    """Which rows of the target were seen, 64 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(target, dtype=np.int64).tobytes()).hexdigest()


def stop_if_not_finite(what: str, values: Tensor, name_of: Callable[[int], str]) -> None:
    """Nothing may be learned from values that are no numbers. values: [N, ...], the same in every process.

    Raises:
        DivergedError: Some are not finite; names their samples.
    """
    finite = values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()
    if bool(finite.all()):
        return
    wrong = (~finite).nonzero().flatten().tolist()
    named = [name_of(row) for row in wrong[:_NAMED]]
    error = DivergedError(
        f"{what} of {len(wrong):,} of {len(values):,} samples are not finite, first {', '.join(named[:5])}; nothing"
        " was trained. The weights of the backbone are damaged, or these pictures overflow them"
    )
    error.details, error.shared = {"step": 0, "what": what, "samples": named}, True
    raise error
