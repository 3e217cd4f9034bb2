"""Everything that the methods of a run share: pools, pristine model, inputs, features, steps; and one way to fit."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.errors import DivergedError
from homing.features.scan import check_head_on_features, scan
from homing.features.source_features import SourceFeatures
from homing.interrupts import stoppable
from homing.models.backbone import Preprocessing
from homing.models.inputs import FeatureInputs, ImageInputs, Inputs, RowsOf, batches_of
from homing.models.parts import autocast, classifier_of, keep_outputs, set_trainable
from homing.pools.augmentation import CropFlipColor
from homing.pools.images import BadImage, Images
from homing.pools.order import Rows
from homing.pools.problem import Problem
from homing.progress import Progress
from homing.rates.learned.apart import even_weight, rates_apart
from homing.rates.learned.evidence import Evidence
from homing.rates.learned.learner import learn_rates
from homing.rates.learned.plan import RatePlan
from homing.rates.online.reweighting import WeightNet
from homing.training.distributed import gather_shares
from homing.training.guide import Guide, Observer
from homing.training.head import probe_head
from homing.training.learned import remembered
from homing.training.loop import FineTuning, Settings
from homing.training.online import Online, OnlineRates, OnlineSettings
from homing.training.optimizer import DEFAULT_LEARNING_RATE
from homing.training.plan import TrainingPlan
from homing.training.records import Checkpoints, Record
from homing.training.reweighting import Reweighting
from homing.training.trackers import track

if TYPE_CHECKING:
    from homing.recipe.schema import Recipe


@dataclass(frozen=True)
class Fitted:
    """A fine-tuned model, the final rates and what they cost. rates, visits: [N]; alignments: [N] or None.

    gradients: of single images, over all passes, target and guide among them.
    """

    model: nn.Module
    rates: Tensor
    visits: Tensor
    alignments: Tensor | None
    gradients: int


@dataclass
class Workbench:
    """What all methods of a run share. Rows are those of `problem`.

    Attributes:
        model: The pristine model, on the device; every fit starts from a copy.
        model_args: What timm.create_model needs to build it again.
        folder: Of the run.
        resume: Whether fits look for checkpoints.
        allow_change: Whether pools may have changed since the checkpoints were written.
        bad: Images that could not be read and were left out.
        dropped: Those of them that were of the source: (id, pool, label).
        stop_asked: Whether to save and stop.
        source_features: What the pristine backbone makes of the source.
    """

    recipe: Recipe
    problem: Problem
    images: Images
    model: nn.Module
    model_args: dict[str, Any]
    preprocessing: Preprocessing
    accelerator: Accelerator
    folder: Path
    resume: bool
    progress: Progress
    allow_change: bool = False
    bad: tuple[BadImage, ...] = ()
    dropped: tuple[tuple[str, str, str], ...] = ()
    stop_asked: Callable[[], bool] = lambda: False
    source_features: SourceFeatures = field(init=False)
    labels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.labels = torch.from_numpy(self.problem.labels)

    # ---- what is computed once ---------------------------------------------------------------------------------

    @property
    def head_only(self) -> bool:
        """Whether nothing but the head is trained."""
        return self.recipe.model.trainable == "head"

    @cached_property
    def pictures(self) -> ImageInputs:
        """Pictures by row."""
        wanted = self.recipe.training.augmentation
        augmentation = None if wanted == "none" else CropFlipColor(**wanted.model_dump())
        return ImageInputs(
            self.images, self.preprocessing, augmentation, seed=self.recipe.seed, device=self.accelerator.device
        )

    @cached_property
    def features(self) -> Tensor:
        """What the pristine model's head sees, float32 [rows, D].

        Rows of source and target; of the test too where only the head is trained.
        """
        problem = self.problem
        rows = np.arange(len(problem) if self.head_only else len(problem.source) + len(problem.target))
        source = self.source_features.of_kept()
        others = rows[len(problem.source) :]
        with self.progress.stage("scan target", len(others)) as advance:
            told = stoppable(advance, self.stop_asked)
            precision = self.recipe.training.precision
            found = scan(self.model, self.pictures, others, self.accelerator, precision=precision, advance=told)
        features = torch.cat([source, found.features])
        self.stop_if_not_finite("features", features, rows)
        if self.head_only:
            check_head_on_features(self.model, self.pictures, features, rows)
        return features

    @property
    def scanned(self) -> Tensor | None:
        """The features, where something needed them."""
        return vars(self).get("features")

    @cached_property
    def inputs(self) -> Inputs:
        """What the trained part is fed."""
        return FeatureInputs(self.features, self.accelerator.device) if self.head_only else self.pictures

    def evidence(self, target: Rows) -> Evidence:
        """What the rates of a fit may know: source, and these rows of the target alone."""
        source = self.problem.source_rows
        truth = self.recipe.data.truth
        pool = self.problem.source
        return Evidence(
            source_features=self.features[source],
            source_labels=self.labels[source],
            target_features=self.features[target],
            target_labels=self.labels[target],
            num_classes=len(self.problem.classes),
            matches=None if truth is None else torch.from_numpy(pool.flags(truth.matches_column)),
            clean=None if truth is None else torch.from_numpy(pool.flags(truth.clean_column)),
        )

    def no_evidence(self, target: Rows) -> Evidence:
        """For methods that look at no feature and no label: two numbers of rows."""
        source, few = (torch.zeros(count, dtype=torch.int64) for count in (len(self.problem.source), len(target)))
        return Evidence(source[:, None].float(), source, few[:, None].float(), few, num_classes=1)

    def learned_rates(self, target: Rows, target_weight: float | None) -> RatePlan:
        """The hierarchical rates, learned with these rows of the target; every process has those of the main one."""
        data = self.recipe.data
        learn = partial(self._learn if data.shares_labels else self._learn_apart, target, target_weight)
        self.features  # noqa: B018 - every process takes part in the scan, before the main one learns from it
        place = self.folder / "checkpoints" / "rates" / self._fold(target)[:12]
        plan = remembered(
            self.accelerator,
            place,
            self._identity(target),
            learn,
            resume=self.resume,
            allow_change=self.allow_change,
        )
        self.stop_if_not_finite("rates", plan.rates, self.problem.source_rows)
        for name, values in plan.descriptors.items():
            self.stop_if_not_finite(name, values, self.problem.source_rows)
        return plan

    def _learn_apart(self, target: Rows, target_weight: float | None) -> RatePlan:
        """Rates where source and target share no labels."""
        problem, recipe = self.problem, self.recipe
        has_labels = recipe.data.sources[0].labels != "none"
        if recipe.trains and not problem.has_target_labels:
            target_weight = 0.0
        elif recipe.trains and target_weight is None:
            target_weight = even_weight(len(problem.source), len(target))
        return rates_apart(
            self.features[problem.source_rows],
            torch.from_numpy(problem.source_labels) if has_labels else None,
            len(problem.source_classes),
            self.features[target],
            descriptors=recipe.rates.descriptors,
            target_weight=target_weight,
            seed=recipe.seed,
        )

    def _learn(self, target: Rows, target_weight: float | None) -> RatePlan:
        evidence = self.evidence(target)
        done, rates, whole = 0.0, self.recipe.rates, len(self.problem.target)
        # a fold of the evaluation leaves fewer images than the recipe's folds were chosen for
        folds = rates.folds if evidence.num_target == whole else min(rates.folds, evidence.num_target)
        with self.progress.stage("learn rates", 1.0) as advance:

            def report(share: float) -> None:
                nonlocal done
                stoppable(advance, self.stop_asked)(share - done)
                done = share

            return learn_rates(
                evidence,
                descriptors=rates.descriptors,
                folds=folds,
                target_weight=target_weight,
                seed=self.recipe.seed,
                progress=report,
            )

    # ---- fitting and predicting --------------------------------------------------------------------------------

    def fit(self, plan: TrainingPlan, target: Rows, settings: Settings, name: str, title: str) -> Fitted:
        """Fine-tune a copy of the pristine model.

        Args:
            plan: How much each row counts.
            target: Rows of the target that may be trained on.
            settings: How to step.
            name: Of the fit: its checkpoints' folder (the main one's is the run's own) and its rows of metrics.
            title: What the progress says.
        """
        rows = np.concatenate([self.problem.source_rows, target])
        split = len(self.problem.classes) if self.problem.own_classes else None
        model = copy.deepcopy(self.model)
        if self.recipe.model.head_init == "probe":
            # two sets of classes start where each of them counts: of phases in turn the last has no source
            phase = plan.phases[-1] if split is None else replace(plan.phases[-1], rates=plan.phases[0].rates)
            probe_head(model, self.features[rows], self.labels[rows], phase, split=split)
        set_trainable(model, self.recipe.model.trainable)
        trained = classifier_of(model) if self.head_only else model
        online = self._online(plan.online, rows, settings) if plan.online is not None else None
        names = [name for pool in self.problem.pools for name in pool.ids]
        tuning = FineTuning(
            trained,
            RowsOf(self.inputs, rows),
            self.labels[rows],
            plan,
            settings,
            self.accelerator,
            online=online,
            checkpoints=self._checkpoints(plan, target, name),
            record=self._record(name),
            names=lambda row: names[rows[row]],
            split=split,
            stop_asked=self.stop_asked,
        )
        with self.progress.stage(title, settings.num_steps) as advance:
            tuning.run(advance)
        if split is not None:
            keep_outputs(model, split)
        visits = tuning.visits[: len(self.problem.source)]
        return Fitted(model, tuning.rates_now(), visits, tuning.alignments(), tuning.gradients())

    def predict(self, model: nn.Module, rows: Rows) -> Tensor:
        """Logits of some rows, float32 [len(rows), C] on the CPU, in every process."""
        trained = classifier_of(model) if self.head_only else model
        trained.eval()
        mine = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        parts = []
        with torch.inference_mode(), self.progress.stage("  evaluate", len(mine)) as advance:
            for batch in batches_of(mine, 64):
                with autocast(self.accelerator.device, self.recipe.training.precision):
                    parts.append(trained(self.inputs.evaluation(batch)).float().cpu())
                stoppable(advance, self.stop_asked)(len(batch))
        return gather_shares(parts, len(rows), self.accelerator)

    def _online(self, kind: str, rows: Rows, settings: Settings) -> Online:
        rates, num_source = self.recipe.rates, len(self.problem.source)
        keeps = kind == "instance"  # what has no memory follows the target step by step, by plain SGD as published
        guide = Guide(
            RowsOf(self.inputs, rows),
            self.labels[rows],
            num_source,
            self.accelerator,
            batch_size=rates.guide.batch_size or max(1, settings.batch_size // 4),
            refresh_every=rates.guide.refresh_every if keeps else 1,
            window=rates.guide.window,
            precision=settings.precision,
            preconditioned=keeps,
            seed=settings.seed,
        )
        observer = Observer(guide, "all" if self.head_only else rates.scope)
        if not keeps:
            return Reweighting(observer, WeightNet(settings.seed) if kind == "meta_weight_net" else None)
        wanted = OnlineSettings(**{name: getattr(rates, name) for name in OnlineSettings.__dataclass_fields__})
        return OnlineRates(wanted, observer, len(self.problem.classes))

    def _fold(self, target: Rows) -> str:
        return hashlib.sha256(target.tobytes()).hexdigest()

    def _identity(self, target: Rows) -> dict[str, str]:
        """What was learned from: digests of recipe, classes and pools (row order too), and which rows of the target."""
        problem = self.problem
        return {
            "recipe": self.recipe.sha256(),
            "classes": _digest(*problem.classes, *problem.own_classes),
            "source": _digest(*problem.source.ids, *problem.source.labels),
            "target": _digest(*problem.target.ids, *problem.target.labels),
            "fold": self._fold(target),
        }

    def stop_if_not_finite(self, what: str, values: Tensor, rows: Rows) -> None:
        """Nothing may be learned from values that are no numbers. values: [len(rows), ...], the same everywhere.

        Raises:
            DivergedError: Some are not finite; names their samples.
        """
        finite = values.isfinite().flatten(1).all(1) if values.ndim > 1 else values.isfinite()
        if bool(finite.all()):
            return
        names = [name for pool in self.problem.pools for name in pool.ids]
        wrong = [names[row] for row in rows[(~finite).numpy()]]
        error = DivergedError(
            f"{what} of {len(wrong):,} of {len(rows):,} samples are not finite, first {', '.join(wrong[:5])}; nothing"
            " was trained. The weights of the backbone are damaged, or these pictures overflow them"
        )
        error.details, error.shared = {"step": 0, "what": what, "samples": wrong}, True
        raise error

    def _record(self, name: str) -> Record:
        every, writes = self.recipe.output.log_every, self.accelerator.is_main_process
        # trackers follow the run's own method: steps of a second one would begin again at 1
        also = partial(track, self.accelerator) if name == self.recipe.rates.method else None
        return Record(self.folder / "metrics.jsonl", name, every, writes=writes, also=also)

    def _checkpoints(self, plan: TrainingPlan, target: Rows, name: str) -> Checkpoints:
        place = self.folder / "checkpoints"
        identity = self._identity(target) | {"rates": plan.digest()}
        output = self.recipe.output
        folder = place if name == self.recipe.rates.method else place / name
        return Checkpoints(folder, output.checkpoint_every, output.keep, identity, self.resume, self.allow_change)


def _digest(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def training_settings(recipe: Recipe, num_steps: int) -> Settings:
    """The recipe's training section as plain values."""
    training = recipe.training
    shared = set(Settings.__dataclass_fields__) & set(type(training).model_fields)
    values = {name: getattr(training, name) for name in shared}
    values["learning_rate"] = training.learning_rate or DEFAULT_LEARNING_RATE[recipe.model.trainable]
    return Settings(num_steps=num_steps, seed=recipe.seed, **values)
