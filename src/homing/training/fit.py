"""One way to fine-tune: a copy of the pristine model, by a plan, on the source and some rows of the target."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.models.inputs import Inputs, RowsOf, batches_of
from homing.models.parts import autocast, keep_outputs, set_trainable
from homing.pools.order import Rows
from homing.rates.learned.guesses import Guesses
from homing.rates.online.reweighting import WeightNet
from homing.session import Session
from homing.training.distributed import gather_shares
from homing.training.guide import Guide, Observer
from homing.training.loop import FineTuning
from homing.training.material import Material
from homing.training.online import Online, OnlineRates, OnlineSettings
from homing.training.plan import TrainingPlan
from homing.training.records import Checkpoints, Record
from homing.training.reweighting import Reweighting
from homing.training.row_map import row_keys
from homing.training.start import start_head
from homing.training.step import Settings
from homing.training.trackers import track

_BATCH = 64


@dataclass(frozen=True)
class FitSettings:
    """What all fits of a run share. Names as in the recipe.

    Attributes:
        trainable: all, last_stage or head.
        head_init: probe or random.
        scope: Parameters whose gradients align.
        guide_batch_size: Target images a guide's gradient; None: a quarter of the batch.
        guide_refresh_every: Steps between two of its gradients, where rates have a memory.
        guide_window: Its gradients averaged.
        instance: How the rates of instances move.
        checkpoint_every: Steps.
        keep: Checkpoints.
        log_every: Steps between two rows of metrics.
        own_method: Whose checkpoints lie in the run's own folder, and whose metrics trackers follow.
    """

    trainable: str = "all"
    head_init: str = "probe"
    scope: str = "all"
    guide_batch_size: int | None = None
    guide_refresh_every: int = 8
    guide_window: int = 4
    instance: OnlineSettings = field(default_factory=OnlineSettings)
    checkpoint_every: int = 500
    keep: int = 2
    log_every: int = 10
    own_method: str = ""


@dataclass(frozen=True)
class Fitted:
    """A fine-tuned model, the final rates and what they cost. rates, visits: [N]; alignments: [N] or None.

    gradients: of single images, over all passes, target and guide among them. guessed: visits of the unlabelled
    images, [U]; empty where none was trained on. branches: fine-tunings averaged. guesses: what the unlabelled images
    were trained as in the end; None where the method has none.
    """

    model: nn.Module
    rates: Tensor
    visits: Tensor
    alignments: Tensor | None
    gradients: int
    guessed: Tensor
    branches: int = 1
    guesses: Guesses | None = None


@dataclass(frozen=True)
class Fit:
    """One fine-tuning of a run.

    Attributes:
        name: Its checkpoints' folder (the own method's is the run's own), and its rows of metrics.
        title: What the progress says.
        plan: How much each row counts.
        target: Rows of the target that may be trained on.
        settings: How to step.
        identity: What its checkpoints belong to.
    """

    name: str
    title: str
    plan: TrainingPlan
    target: Rows
    settings: Settings
    identity: dict[str, str]


def fit(session: Session, material: Material, shared: FitSettings, one: Fit) -> Fitted:
    """Fine-tune a copy of the pristine model."""
    guesses, split = one.plan.guesses, material.split
    rows, num_source = material.rows_of(one.target, guessed=len(guesses) > 0), len(material.problem.source)
    labels = material.labels[rows]
    labels[num_source : num_source + len(guesses)] = guesses
    model = copy.deepcopy(material.model)
    if shared.head_init == "probe":
        start_head(session, material, model, one.plan, rows, labels, title=one.title, trainable=shared.trainable)
    set_trainable(model, shared.trainable)
    trained = material.trained_part(model)
    inputs = RowsOf(material.inputs, rows)
    observed = None
    if one.plan.online is not None:
        sets, num_groups = material.label_sets, material.num_groups
        groups = None if sets is None else material.groups[rows]
        observed = online_of(
            one.plan, inputs, labels, num_groups, session.accelerator, one.settings, shared, sets=sets, groups=groups
        )
    tuning = FineTuning(
        trained,
        inputs,
        labels,
        one.plan,
        one.settings,
        session.accelerator,
        online=observed,
        checkpoints=_checkpoints(session, shared, one),
        record=_record(session, shared, one.name),
        names=lambda row: material.problem.id_of(int(rows[row])),
        keys=lambda: row_keys(material.ids_of(one.target, guessed=len(guesses) > 0), num_source, len(guesses)),
        split=split,
        sets=material.label_sets,
        stop_asked=session.stop_asked,
    )
    with session.training(one.title, one.settings.num_steps, tuning.tally.told) as advance:
        tuning.run(advance)
    if split is not None:
        keep_outputs(model, split)
    known, guessed = slice(num_source), slice(num_source, num_source + len(guesses))
    rates, alignments = tuning.rates_now(), tuning.alignments()
    return Fitted(
        model,
        rates[known],
        tuning.visits[known],
        None if alignments is None else alignments[known],
        tuning.gradients(),
        tuning.visits[guessed],
    )


def online_of(
    plan: TrainingPlan,
    inputs: Inputs,
    labels: Tensor,
    num_classes: int,
    accelerator: Accelerator,
    settings: Settings,
    shared: FitSettings,
    *,
    sets: Tensor | None = None,
    groups: Tensor | None = None,
) -> Online:
    """What learns of single samples by a plan that asks for it; arguments as in `FineTuning`, groups as in Material."""
    # what has no memory follows the target step by step, by plain SGD as published
    keeps = plan.online == "instance"
    guide = Guide(
        inputs,
        labels,
        len(plan.phases[0].rates),
        accelerator,
        batch_size=shared.guide_batch_size or max(1, settings.batch_size // 4),
        refresh_every=shared.guide_refresh_every if keeps else 1,
        window=shared.guide_window,
        precision=settings.precision,
        preconditioned=keeps,
        seed=settings.seed,
        sets=sets,
    )
    observer = Observer(guide, "all" if shared.trainable == "head" else shared.scope)
    if keeps:
        return OnlineRates(shared.instance, observer, num_classes, groups)
    return Reweighting(observer, WeightNet(settings.seed) if plan.online == "meta_weight_net" else None)


def _record(session: Session, shared: FitSettings, name: str) -> Record:
    # trackers follow the run's own method: steps of a second one would begin again at 1
    also = partial(track, session.accelerator) if name == shared.own_method else None
    writes = session.accelerator.is_main_process
    return Record(session.folder / "metrics.jsonl", name, shared.log_every, writes=writes, also=also)


def _checkpoints(session: Session, shared: FitSettings, one: Fit) -> Checkpoints:
    place = session.checkpoints if one.name == shared.own_method else session.checkpoints / one.name
    return Checkpoints(place, shared.checkpoint_every, shared.keep, one.identity, session.resume, session.allow_change)


def predict(session: Session, material: Material, model: nn.Module, rows: Rows, *, precision: str) -> Tensor:
    """Logits of some rows, float32 [len(rows), C] on the CPU, in every process."""
    trained = material.trained_part(model)
    trained.eval()
    accelerator, parts = session.accelerator, []
    mine = rows[accelerator.process_index :: accelerator.num_processes]
    with torch.inference_mode(), session.stage("  evaluate", len(mine)) as advance:
        report, batches = session.stoppable(advance), list(batches_of(mine, _BATCH))
        for batch, images in zip(batches, material.inputs.evaluating(batches), strict=True):
            with autocast(session.device, precision):
                parts.append(trained(images).float().cpu())
            report(len(batch))
    return gather_shares(parts, len(rows), accelerator)
