"""The first arrows of a run: recipe → pools → model → features, and what cannot be read is left out on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from homing.errors import DataError, RecipeError
from homing.evaluation.metrics import check_metric
from homing.evaluation.planning import stop_if_not_finite
from homing.features.cache import FeatureCache, open_first, user_cache
from homing.features.fill import Witness
from homing.features.forward import feature_width
from homing.features.kept_looks import kept_looks
from homing.features.key import canvas_facts, feature_facts
from homing.features.scan import Scan, scan
from homing.features.store import Store
from homing.models.activations import Activations
from homing.models.backbone import Preprocessing, build_model
from homing.models.inputs import ImageInputs, batches_of
from homing.models.parts import adapt_batch_norms
from homing.outputs.facts import Asked, RunFacts
from homing.outputs.ownership import FEATURES, check_pools
from homing.pools.class_matching import union_warnings
from homing.pools.images import BadImage, Images
from homing.pools.looks import Looks
from homing.pools.order import Rows
from homing.pools.problem import Problem, open_problem
from homing.pools.repeated import repeated_rows
from homing.recipe.idle import settings_without_effect
from homing.recipe.schema import Recipe
from homing.session import Session
from homing.terminal import counted, in_a_line
from homing.training.activations import keep_activations
from homing.training.distributed import agree, on_main
from homing.training.material import FeatureBlocks, Material
from homing.training.rehearsal import rehearse_scan, rehearse_step
from homing.unpacking import (
    augmentation_of,
    forecast_of,
    keeping_of,
    methods_of,
    needs_features,
    observes,
    training_settings,
)

_LISTED = 20
_BLOCK = 8_192  # rows
_UNBOUNDED = 2**62  # bytes of features in a run's own folder, which go when it is complete


@dataclass(frozen=True)
class Prepared:
    """What a run is made of once its pictures were looked at.

    Attributes:
        material: For every fit.
        bad: Images that could not be read and were left out.
        dropped: Those of them that were of the source: (id, pool, label).
        listed: Digest of each role's pool as it was listed, images that cannot be read among them.
        num_scanned: Images of the source that went through the model in this scan.
        stores: Open while the run lasts.
        repeated: Role → unlabelled images that were left out because the same pictures are there.
        looks: Of each row's picture, as far as scans into this store have seen it.
    """

    material: Material
    bad: tuple[BadImage, ...]
    dropped: tuple[tuple[str, str, str], ...]
    listed: dict[str, str]
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
        found, store, activations = _scan(recipe, session, model, material.pictures)
        features = found.features if needs_features(recipe) else None
        changed = replace(material, model=model, features=features, kept=store.folder, activations=activations)
        return replace(self, material=changed, stores=(store,))


def prepare(recipe: Recipe, session: Session) -> Prepared:
    """Open the pools, build the model, look at every picture once.

    Raises:
        DataError: Pools cannot be used, or hold images that cannot be read and are not to be dropped.
    """
    for warning in settings_without_effect(recipe):
        session.progress.say(f"warning: {warning}")
    problem = open_problem(recipe.data, trains=recipe.trains, sets=recipe.is_multi_label)
    if problem.only_in_target:
        for warning in union_warnings(problem.source, problem.target):
            session.progress.say(f"warning: {in_a_line(warning)}")
    if recipe.trains:
        check_metric(recipe.evaluation.metric, problem)
    listed = digests_of(problem)
    agree(session.accelerator, "the pools", "".join(listed.values()))
    if session.resume and not session.allow_change:
        on_main(session.accelerator, lambda: check_pools(session.folder, listed))
    session.progress.expect(forecast_of(recipe, problem, methods_of(recipe)))
    model, preprocessing, arguments = build_backbone(recipe, problem.num_outputs, session.device)
    rehearse(recipe, model, preprocessing, session.device)
    looked_at_once = not recipe.trains or recipe.model.trainable == "head"
    pictures = open_pictures(recipe, session, problem, preprocessing, keeps=not looked_at_once)
    if recipe.training.batch_norm == "adapt":
        adapt_to(model, pictures, problem.target_rows)
    canvases = keep_canvases(recipe, session, preprocessing, pictures) if not looked_at_once else ()
    found, store, activations = _scan(recipe, session, model, pictures)
    repeated = repeated_rows(problem, found.digests, (item.row for item in found.bad))
    gone = sorted({*(item.row for item in found.bad), *np.concatenate([[], *repeated.values()]).astype(int).tolist()})
    kept, dropped = leave_out(problem, found, gone, pictures, session, drop=recipe.data.on_bad_image == "drop")
    if gone and activations is not None:
        activations.select(np.setdiff1d(np.arange(len(problem)), gone))
    features: FeatureBlocks | None = None
    if needs_features(recipe):
        features = found.keep(np.setdiff1d(np.arange(len(problem)), gone)).features if gone else found.features
        if found.num_passed:  # what lay there was looked at when it was scanned
            on_main(session.accelerator, lambda: check_finite(features, kept))
    head_only = recipe.model.trainable == "head"
    material = Material(kept, model, arguments, preprocessing, pictures, features, head_only, store.folder, activations)
    scanned = min(found.num_passed, int(np.searchsorted(found.missing, len(problem.source))))
    again = {role: len(rows) for role, rows in repeated.items()}
    looks = np.delete(kept_looks(store.folder, found.digests), gone)
    return Prepared(material, tuple(found.bad), dropped, listed, scanned, (store, *canvases), again, looks)


def digests_of(problem: Problem) -> dict[str, str]:
    """Role → digest of the ids and labels of its pool, in their order."""
    return {role: pool.identity() for role, pool in problem.by_role.items()}


def adapt_to(model: nn.Module, pictures: ImageInputs, target: Rows) -> None:
    """Re-estimate the statistics of batch norms on these rows of the target, those that can be read."""
    batches = pictures.scanning(batches_of(target, 64))
    adapt_batch_norms(model, (images for images, _ in batches if len(images)))


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
    listed = "\n  ".join([in_a_line(f"{item.name}: {item.reason}") for item in found.bad[:_LISTED]])
    more = f"\n  ... and {len(found.bad) - _LISTED:,} more" if len(found.bad) > _LISTED else ""
    if not drop:
        raise DataError(
            f"{len(found.bad):,} of {counted(len(problem), 'image')} cannot be read; mend or remove them, or set"
            f" data.on_bad_image: drop\n  {listed}{more}"
        )
    session.progress.say(f"left out {counted(len(found.bad), 'image')} that cannot be read:\n  {listed}{more}")


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


def keep_canvases(
    recipe: Recipe, session: Session, preprocessing: Preprocessing, pictures: ImageInputs
) -> tuple[Store, ...]:
    """Decode every picture once and keep it on disk, where the recipe asks for it."""
    if recipe.data.cache != "disk":
        return ()
    shape = (preprocessing.canvas, preprocessing.canvas, 3)
    facts = canvas_facts(preprocessing, max_pixels=recipe.data.max_pixels)

    def opened(caches: Sequence[FeatureCache]) -> Store:
        return open_first(caches, facts, shape=shape, dtype="uint8", say=session.progress.say)

    kept, store = _scan_into(caches_of(recipe, session.shared or session.folder), opened, session, pictures, "decode")
    pictures.images.attach(kept.features, kept.digests)
    return (store,)


def caches_of(recipe: Recipe, folder: Path | None) -> tuple[FeatureCache, ...]:
    """Where features may be kept, the best place first; those of a backbone adapted to one target serve no other.

    Args:
        recipe: Says where.
        folder: Of the run, which takes what no cache can; None: nowhere else.
    """
    wanted, size = recipe.output.cache, int(recipe.output.cache_gb * 1e9)
    own = () if folder is None else (FeatureCache(folder / FEATURES, _UNBOUNDED),)
    if wanted == "none" or recipe.training.batch_norm == "adapt":
        return own
    place = user_cache() if wanted == "user" else Path(wanted)
    return own if place is None else (FeatureCache(place, size), *own)


def open_store(
    recipe: Recipe,
    session: Session,
    model: nn.Module | None,
    pictures: ImageInputs,
    caches: Sequence[FeatureCache],
) -> Store:
    """The store of what a model makes of pictures; without one, of whether each can be read.

    Raises:
        RecipeError: Features take more than every cache may hold: they would be evicted as soon as they are scanned.
    """
    precision, max_pixels = recipe.training.precision, recipe.data.max_pixels
    preprocessing, say = pictures.preprocessing, session.progress.say
    if model is None:
        return open_first(caches, canvas_facts(preprocessing, max_pixels=max_pixels), shape=(0,), say=say)
    width = feature_width(model, preprocessing, session.device, precision)
    facts = feature_facts(model, preprocessing, precision=precision, max_pixels=max_pixels, device=session.device.type)
    dtype = recipe.output.features
    size = len(pictures.images) * width * np.dtype(dtype).itemsize
    fitting = [cache for cache in caches if cache.max_bytes >= size]
    if len(fitting) < len(caches):
        about = f"features of {len(pictures.images):,} images take {size / 1e9:.3g} GB, more than output.cache_gb"
        if not fitting:
            raise RecipeError(f"{about} ({recipe.output.cache_gb:g}); set it to {1.1 * size / 1e9:.3g} or more")
        say(f"{about}: they are kept in the run's folder, and only until it is complete")
    return open_first(fitting, facts, shape=(width,), dtype=dtype, say=say)


def _scan(
    recipe: Recipe, session: Session, model: nn.Module, pictures: ImageInputs
) -> tuple[Scan, Store, Activations | None]:
    """Features of every row, or where nothing looks at them only whether each picture can be read.

    On the way the activations in front of the last stage are kept, where it is trained on them.
    """
    wanted = model if needs_features(recipe) else None
    kept: list[Activations] = []

    def opened(caches: Sequence[FeatureCache]) -> Store:
        return open_store(recipe, session, wanted, pictures, caches)

    def witness(store: Store) -> Activations | None:
        activations = keep_activations(session, model, pictures, store.folder, keeping_of(recipe))
        kept[:] = [] if activations is None else [activations]
        return None if wanted is None else activations

    caches, precision = caches_of(recipe, session.shared or session.folder), recipe.training.precision
    found, store = _scan_into(caches, opened, session, pictures, "scan", wanted, precision, witness)
    return found, store, kept[0] if kept else None


def _scan_into(
    caches: Sequence[FeatureCache],
    opened: Callable[[Sequence[FeatureCache]], Store],
    session: Session,
    pictures: ImageInputs,
    title: str,
    model: nn.Module | None = None,
    precision: str = "fp32",
    witness: Callable[[Store], Witness | None] = lambda store: None,
) -> tuple[Scan, Store]:
    """A scan of every row into the first cache that takes it; one whose disk is full takes nothing."""
    store = opened(caches)
    places = [cache.folder for cache in caches]
    others = caches[places.index(store.folder.parent) + 1 :]
    try:
        found = scan(
            pictures,
            np.arange(len(pictures.images)),
            store,
            session.accelerator,
            model=model,
            precision=precision,
            progress=session.progress,
            stop_asked=session.stop_asked,
            title=title,
            witness=witness(store),
        )
    except OSError as error:
        store.close()
        if not others or session.accelerator.num_processes > 1:
            raise
        session.progress.say(f"warning: {store.folder} cannot be written to ({error.strerror or error})")
        return _scan_into(others, opened, session, pictures, title, model, precision, witness)
    return found, store
