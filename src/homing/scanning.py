"""`homing scan`: features of a recipe's pools, ahead of any run and on any number of machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from homing.errors import Interrupted, RecipeError
from homing.features.scan import scan, scan_part
from homing.interrupts import StopOnSignal, going_on_with_the_scan
from homing.outputs.pool_paths import check_cache
from homing.outputs.run_folder import pools_of
from homing.pools.problem import open_problem
from homing.preparing import build_backbone, digests_of, open_pictures
from homing.progress import Progress
from homing.recipe.schema import Recipe
from homing.session import Session
from homing.stored import caches_of, open_store
from homing.training.distributed import agree
from homing.training.liveness import watching
from homing.training.rehearsal import rehearse_scan
from homing.training.trackers import tracking_accelerator


@dataclass(frozen=True)
class ScanReport:
    """What a scan did.

    Attributes:
        store: Folder that holds the features.
        num_rows: Images of all pools of the recipe.
        num_scanned: Images that went through the model now.
        num_bad: Images that cannot be read; of a part alone this is not known.
        part: (k, n), from 1.
    """

    store: str
    num_rows: int
    num_scanned: int
    num_bad: int | None
    part: tuple[int, int]

    def as_dict(self) -> dict[str, object]:
        """Plain values for --json."""
        return asdict(self)


def scan_recipe(
    recipe: Recipe,
    progress: Progress,
    *,
    part: tuple[int, int] = (1, 1),
    engine: str = "local",
    address: str | None = None,
    verify: bool = False,
) -> ScanReport:
    """Fill the store of a recipe's features; what is there already is not computed again.

    Args:
        recipe: Its pools, its model and its `output.cache`.
        progress: Told of the stages.
        part: (k, n): the k-th of n parts, from 1; parts need nothing of one another.
        engine: local (this process, or those of a launcher) or ray.
        address: Of a Ray cluster; None: a local one.
        verify: Read the bytes of images that look unchanged as well.

    Raises:
        RecipeError: Nothing would be kept, or the engine cannot do what was asked.
        DataError: A pool cannot be used.
        Interrupted: A stop was asked for; what was scanned until then is kept.
    """
    if recipe.output.cache == "none" or recipe.training.batch_norm == "adapt":
        raise RecipeError(
            "homing scan keeps features for later runs, and this recipe keeps none (output.cache: none, or"
            " training.batch_norm: adapt); set output.cache to a folder that all machines share"
        )
    check_cache(recipe.output.cache, pools_of(recipe))
    if engine == "ray" and part != (1, 1):
        raise RecipeError("--part and --engine ray exclude each other: Ray hands out the parts itself")
    if not caches_of(recipe, None):
        raise RecipeError("this user has no home folder to keep features in; set output.cache to a folder")
    accelerator = tracking_accelerator((), Path.cwd())
    if part != (1, 1) and accelerator.num_processes > 1:
        raise RecipeError("--part is for machines that know nothing of each other; under a launcher leave it out")
    with StopOnSignal() as stop, watching(accelerator), going_on_with_the_scan():
        session = Session(accelerator, Path.cwd(), progress, recipe.seed, stop_asked=lambda: stop.asked)
        try:
            return _scanned(recipe, session, part, engine, address, verify)
        except Interrupted as error:
            error.exit_code = error.exit_code if stop.signal is None else 128 + stop.signal
            raise


def _scanned(
    recipe: Recipe, session: Session, part: tuple[int, int], engine: str, address: str | None, verify: bool
) -> ScanReport:
    problem = open_problem(recipe.data, trains=recipe.trains, sets=recipe.is_multi_label)
    agree(session.accelerator, "the pools", "".join(digests_of(problem).values()))
    model, preprocessing, _ = build_backbone(recipe, problem.num_outputs, session.device)
    rehearse_scan(model, preprocessing, session.device, recipe.training.precision)
    pictures = open_pictures(recipe, session, problem, preprocessing, keeps=False)
    rows = np.arange(len(problem))
    shared: dict[str, Any] = {"model": model, "precision": recipe.training.precision, "verify": verify}
    shared |= {"progress": session.progress, "stop_asked": session.stop_asked}
    with open_store(recipe, session, model, pictures, caches_of(recipe, None)) as store:
        try:
            if part != (1, 1):
                passed = scan_part(pictures, rows, store, part=part, device=session.device, **shared)
                return ScanReport(str(store.folder), len(rows), passed, None, part)
            if engine == "ray":
                from homing.features.ray_engine import scan_with_ray

                gpus = 1 if session.device.type == "cuda" else 0
                found = scan_with_ray(pictures, rows, store, address=address, num_gpus=gpus, **shared)
            else:
                found = scan(pictures, rows, store, session.accelerator, **shared)
            return ScanReport(str(store.folder), len(rows), found.num_passed, len(found.bad), part)
        finally:
            pictures.images.close()
