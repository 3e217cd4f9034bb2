"""The first arrows of a run: recipe → pools → model → features, and what cannot be read is left out on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from homing.errors import DataError
from homing.evaluation.metrics import check_metric
from homing.evaluation.planning import stop_if_not_finite
from homing.features.kept_looks import kept_looks
from homing.features.scan import Scan
from homing.features.shards import Bytes
from homing.features.store import Store
from homing.models.backbone import Preprocessing, build_model
from homing.models.inputs import ImageInputs
from homing.models.parts import adapt_batch_norms
from homing.outputs.facts import Asked, RunFacts
from homing.outputs.ownership import check_pictures, check_pools
from homing.pools.class_matching import union_warnings
from homing.pools.images import BadImage, Images
from homing.pools.looks import Looks
from homing.pools.order import Rows
from homing.pools.problem import Problem, open_problem
from homing.pools.repeated import repeated_rows
from homing.recipe.idle import settings_without_effect
from homing.recipe.schema import Recipe
from homing.session import Session
from homing.stored import keep_canvases, scan_rows
from homing.terminal import counted, in_a_line
from homing.training.distributed import agree, on_main
from homing.training.material import FeatureBlocks, Material
from homing.training.rehearsal import rehearse_scan, rehearse_step
from homing.unpacking import (
    augmentation_of,
    forecast_of,
    methods_of,
    needs_features,
    observes,
    training_settings,
)
from homing.workable import bad_images, check_workable, listed

_BLOCK = 8_192  # rows
_ADAPTED = 64  # images a batch, at most


@dataclass(frozen=True)
class Prepared:
    """What a run is made of once its pictures were looked at.

    Attributes:
        material: For every fit.
        bad: Images that could not be read and were left out.
        dropped: Those of them that were of the source: (id, pool, label).
        listed: Digest of each role's pool as it was listed, images that cannot be read among them.
        pictures: Digest of the bytes of each role's pictures, those that cannot be read among them.
        num_scanned: Images of the source that went through the model in this scan.
        stores: Open while the run lasts.
        repeated: Role → unlabelled images that were left out because the same pictures are there.
        looks: Of each row's picture, as far as scans into this store have seen it.
    """

    material: Material
    bad: tuple[BadImage, ...]
    dropped: tuple[tuple[str, str, str], ...]
    listed: dict[str, str]
    pictures: dict[str, str]
    num_scanned: int
    stores: tuple[Store, ...]
    repeated: Mapping[str, int] = field(default_factory=dict)
    looks: Looks = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __enter__(self) -> Prepared:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for store in self.stores:
            store.close()
        if self.material.activations is not None:
            self.material.activations.close()
        self.material.pictures.images.close()

    def facts(self, recipe: Recipe, session: Session) -> RunFacts:
        """The run as plain values, for its outputs."""
        material = self.material
        return RunFacts(
            folder=session.folder,
            asked=Asked.of(recipe),
            problem=material.problem,
            labels=material.labels,
            model=material.model,
            model_args=material.model_args,
            preprocessing=material.preprocessing,
            features=material.features,
            scanned_images=self.num_scanned,
            bad=self.bad,
            dropped=self.dropped,
            repeated=self.repeated,
            looks=self.looks,
            max_pixels=recipe.data.max_pixels,
        )

    def seeing(self, target: Rows, recipe: Recipe, session: Session) -> Prepared:
        """The same as if these rows were the whole target: a backbone that adapts to it has seen them alone."""
        if recipe.training.batch_norm != "adapt" or len(target) == len(self.material.problem.target):
            return self
        material = self.material
        model, _, _ = build_backbone(recipe, material.problem.num_outputs, session.device)
        adapt_to(model, material.pictures, target)
        found, store, activations = scan_rows(recipe, session, model, material.pictures)
        features = found.features if needs_features(recipe) else None
        changed = replace(material, model=model, features=features, kept=store.folder, activations=activations)
        return replace(self, material=changed, stores=(store,))


def prepare(recipe: Recipe, session: Session) -> Prepared:
    """Open the pools, build the model, look at every picture once.

    Raises:
        DataError: Pools cannot be used, are too small, or hold images that cannot be read and are not to be dropped.
    """
    for warning in settings_without_effect(recipe):
        session.progress.say(f"warning: {warning}")
    problem = open_problem(recipe.data, trains=recipe.trains, sets=recipe.is_multi_label)
    if problem.only_in_target:
        for warning in union_warnings(problem.source, problem.target):
            session.progress.say(f"warning: {in_a_line(warning)}")
    if recipe.trains:
        check_metric(recipe.evaluation.metric, problem)
    check_workable(recipe, problem)
    seen = digests_of(problem)
    agree(session.accelerator, "the pools", "".join(seen.values()))
    if session.resume and not session.allow_change:
        on_main(session.accelerator, lambda: check_pools(session.folder, seen))
    session.progress.expect(forecast_of(recipe, problem, methods_of(recipe)))
    model, preprocessing, arguments = build_backbone(recipe, problem.num_outputs, session.device)
    rehearse(recipe, model, preprocessing, session.device)
    looked_at_once = not recipe.trains or recipe.model.trainable == "head"
    pictures = open_pictures(recipe, session, problem, preprocessing, keeps=not looked_at_once)
    if recipe.training.batch_norm == "adapt":
        adapt_to(model, pictures, problem.target_rows)
    canvases = keep_canvases(recipe, session, preprocessing, pictures) if not looked_at_once else ()
    found, store, activations = scan_rows(recipe, session, model, pictures)
    shown = pictures_of(problem, found.digests)
    if session.resume:
        on_main(session.accelerator, lambda: check_pictures(session.folder, shown, may_change=session.allow_change))
    repeated = repeated_rows(problem, found.digests, (item.row for item in found.bad))
    gone = sorted({*(item.row for item in found.bad), *np.concatenate([[], *repeated.values()]).astype(int).tolist()})
    kept, dropped = leave_out(problem, found, gone, pictures, session, drop=recipe.data.on_bad_image == "drop")
    if gone:
        check_workable(recipe, kept)
    if gone and activations is not None:
        activations.select(np.setdiff1d(np.arange(len(problem)), gone))
    features: FeatureBlocks | None = None
    if needs_features(recipe):
        features = found.keep(np.setdiff1d(np.arange(len(problem)), gone)).features if gone else found.features
        if found.num_passed or not session.resume:  # a run that is gone on with looked at what lay there
            on_main(session.accelerator, lambda: check_finite(features, kept))
    head_only = recipe.model.trainable == "head"
    material = Material(kept, model, arguments, preprocessing, pictures, features, head_only, store.folder, activations)
    scanned = min(found.num_passed, int(np.searchsorted(found.missing, len(problem.source))))
    again = {role: len(rows) for role, rows in repeated.items()}
    looks = np.delete(kept_looks(store.folder, found.digests), gone)
    return Prepared(material, tuple(found.bad), dropped, seen, shown, scanned, (store, *canvases), again, looks)


def digests_of(problem: Problem) -> dict[str, str]:
    """Role → digest of the ids and labels of its pool, in their order."""
    return {role: pool.identity() for role, pool in problem.by_role.items()}


def pictures_of(problem: Problem, digests: Bytes) -> dict[str, str]:
    """Role → digest of the digests of its pictures, in their order. digests: uint8 [N, 16], of all rows."""
    found, start = {}, 0
    for role, pool in problem.by_role.items():
        own = np.ascontiguousarray(digests[start : start + len(pool)])
        found[role], start = hashlib.sha256(own.data).hexdigest(), start + len(pool)
    return found


def adapt_to(model: nn.Module, pictures: ImageInputs, target: Rows) -> None:
    """Re-estimate the statistics of batch norms on these rows of the target, those that can be read."""
    batches = pictures.scanning(np.array_split(target, -(-len(target) // _ADAPTED)))  # alike in size: they count alike
    found = (images for images, _ in batches if len(images))
    adapt_batch_norms(model, (torch.cat([images] * 2) if len(images) == 1 else images for images in found))


def leave_out(
    problem: Problem, found: Scan, gone: Sequence[int], pictures: ImageInputs, session: Session, *, drop: bool
) -> tuple[Problem, tuple[tuple[str, str, str], ...]]:
    """The problem without some rows, and (id, pool, label) of each row of the source that is gone.

    Args:
        problem: As it was scanned.
        found: Of the scan.
        gone: Rows to leave out, ascending; those that cannot be read are among them.
        pictures: Of the problem's rows; rows are left out here too.
        session: Told.
        drop: Whether images that cannot be read may be left out.

    Raises:
        DataError: There are such images and they are not to be dropped; lists up to 20.
    """
    if not gone:
        return problem, ()
    if found.bad:
        _tell_bad(problem, found, session, drop=drop)
    source = problem.source
    pictures.images.select(np.setdiff1d(np.arange(len(problem)), gone))
    dropped = tuple((source.ids[row], source.sources[row], source.labels[row]) for row in gone if row < len(source))
    return problem.without(gone), dropped


def _tell_bad(problem: Problem, found: Scan, session: Session, *, drop: bool) -> None:
    if not drop:
        raise DataError(bad_images(found.bad, len(problem)))
    session.progress.say(f"left out {counted(len(found.bad), 'image')} that cannot be read:\n  {listed(found.bad)}")


def check_finite(features: FeatureBlocks, problem: Problem) -> None:
    """Nothing may be learned from features that are no numbers.

    Raises:
        DivergedError: Names the samples.
    """
    for start in range(0, len(features), _BLOCK):
        block = features.rows(slice(start, start + _BLOCK))
        if not bool(block.isfinite().all()):
            whole = torch.cat([features.rows(slice(s, s + _BLOCK)).sum(dim=1) for s in range(0, len(features), _BLOCK)])
            stop_if_not_finite("features", whole, problem.id_of)


def build_backbone(
    recipe: Recipe, num_outputs: int, device: torch.device
) -> tuple[nn.Module, Preprocessing, dict[str, Any]]:
    """The pristine model on a device, its preprocessing, and what builds it again."""
    model, preprocessing, arguments = build_model(
        recipe.model.backbone,
        recipe.model.weights,
        num_classes=num_outputs,
        image_size=recipe.model.image_size,
        seed=recipe.seed,
    )
    return model.to(device).to(memory_format=torch.channels_last), preprocessing, arguments


def rehearse(recipe: Recipe, model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> None:
    """Do with a copy of the model, on made-up images, what will be done with it; before anything that takes long.

    Raises:
        RecipeError: It cannot be done.
    """
    rehearse_scan(model, preprocessing, device, recipe.training.precision)
    if not recipe.trains:
        return
    chosen = recipe.model
    is_cut_down = any(spec.labels == "other" for spec in recipe.data.sources)
    rehearse_step(
        model,
        preprocessing,
        device,
        training_settings(recipe, num_steps=1),
        trainable=chosen.trainable,
        needs_linear_head=chosen.head_init == "probe" or chosen.trainable == "head" or is_cut_down,
        observed=recipe.rates.scope if observes(recipe) else None,
    )


def open_pictures(
    recipe: Recipe, session: Session, problem: Problem, preprocessing: Preprocessing, *, keeps: bool
) -> ImageInputs:
    """Pictures of all rows; keeps: whether decoded ones are kept as far as `data.cache_gb` goes."""
    store, rows, names = problem.joined()
    images = Images(
        store,
        rows,
        names,
        canvas=preprocessing.canvas,
        interpolation=preprocessing.interpolation,
        max_pixels=recipe.data.max_pixels,
        cache_gb=recipe.data.cache_gb if keeps else 0.0,
        cached_first=np.concatenate([problem.target_rows, problem.test_rows, problem.unlabelled_rows]),
        workers=recipe.training.workers,
    )
    return ImageInputs(images, preprocessing, augmentation_of(recipe), seed=recipe.seed, device=session.device)
