"""Where what is scanned of a run's pictures is kept, and the scans that fill it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from homing.errors import RecipeError
from homing.features.cache import FeatureCache, open_first, user_cache
from homing.features.fill import Witness
from homing.features.forward import feature_width
from homing.features.key import canvas_facts, feature_facts
from homing.features.scan import Scan, scan
from homing.features.store import Store
from homing.models.activations import Activations
from homing.models.backbone import Preprocessing
from homing.models.inputs import ImageInputs
from homing.outputs.ownership import FEATURES
from homing.recipe.schema import Recipe
from homing.session import Session
from homing.training.activations import keep_activations
from homing.unpacking import keeping_of, needs_features

_UNBOUNDED = 2**62  # bytes of features in a run's own folder, which go when it is complete


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


def scan_rows(
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
