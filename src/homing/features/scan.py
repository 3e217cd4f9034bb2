"""The scan: one pass over the images of a pool that reads each once, and leaves digest, goodness and features on disk.

Rows that the store knows are not read at all; rows whose bytes it knows under another name are read but go through no
model. Several processes take a share each and put it into the same store; nothing is sent from one to another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from homing.errors import RecipeError
from homing.features.fill import Filler, Witness
from homing.features.forward import features_of
from homing.features.meeting import Meeting, meet
from homing.features.places import BAD, UNKNOWN, Places
from homing.features.shards import Bytes
from homing.features.store import Store
from homing.features.view import StoredRows
from homing.interrupts import stoppable
from homing.models.inputs import ImageInputs
from homing.models.parts import classifier_of
from homing.pools.images import BadImage, describe_blank
from homing.pools.order import Rows
from homing.progress import Progress
from homing.terminal import counted


@dataclass(frozen=True)
class Scan:
    """What a scan found. Rows count within the N that were scanned.

    Attributes:
        features: float32 [N, D], block by block; NaN for images that cannot be used.
        bad: Those images, in the order of the rows.
        digests: uint8 [N, 16]: beginning of the sha256 of each image's bytes; 0 where they could not be read.
        num_passed: Images that went through the model (or the decoder alone, where there is no model) this time, over
            all processes.
        missing: Rows that the store did not know by their files, int64, sorted.
    """

    features: StoredRows
    bad: list[BadImage]
    digests: Bytes
    num_passed: int = 0
    missing: Rows = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.digests)

    def keep(self, rows: Rows) -> Scan:
        """Only some rows, in this order: those that were not left out. rows: int64 [M], sorted or not."""
        place = {int(row): position for position, row in enumerate(rows)} if self.bad else {}
        bad = [BadImage(place[item.row], item.name, item.reason) for item in self.bad if item.row in place]
        bad.sort(key=lambda item: item.row)
        return Scan(self.features.select(rows), bad, self.digests[rows], self.num_passed)


def scan(
    pictures: ImageInputs,
    rows: Rows,
    store: Store,
    accelerator: Accelerator,
    *,
    model: nn.Module | None = None,
    precision: str = "fp32",
    batch_size: int = 64,
    verify: bool = False,
    progress: Progress | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
    title: str = "scan",
    witness: Witness | None = None,
) -> Scan:
    """Features of each row, without augmentation: from the store, and of what is missing there from the images.

    Every process must call it; each scans a share of what is missing into the store, all of them get the whole.

    Args:
        pictures: Pictures by row.
        rows: Rows to scan, int64 [N].
        store: Where rows are and go; of features with a model; without one of canvases, or of nothing but goodness.
        accelerator: Device and processes.
        model: A timm model, in evaluation mode while this runs.
        precision: fp32 or bf16.
        batch_size: Of one process.
        verify: Believe no file's size and time of change: read all bytes again, and trust their digests alone.
        progress: Told of the stage.
        stop_asked: Whether to stop; what was done until then is kept.
        title: Of the stage.
        witness: Looks on while images go through the model.

    Raises:
        DataError: Processes do not share the store's folder, or another process failed.
        Interrupted: A stop was asked for.
    """
    progress = progress or Progress(quiet=True)
    with meet(accelerator, store.folder) as others:
        places = _planned(pictures, rows, store, others, verify)
        todo = places.missing()
        mine = share_of(todo, others.rank, others.num)
        filler = Filler(store, pictures, model, accelerator.device, precision, batch_size, witness)
        with progress.scan(title, len(todo)) as advance:
            report = stoppable(advance, stop_asked)
            found, passed = filler.fill(rows[mine], lambda count: report(count * others.num), places.digests[mine])
        places, passed = _together(places, todo, found, passed, store, others)
    if not passed and len(rows):
        progress.say(f"{title}: {counted(len(rows), 'image')} had been scanned before")
    warn_of_blank(places, rows, pictures, progress)
    return replace(found_in(places, rows, pictures, store, passed), missing=todo)


def scan_part(
    pictures: ImageInputs,
    rows: Rows,
    store: Store,
    *,
    part: tuple[int, int],
    model: nn.Module | None = None,
    device: torch.device | None = None,
    precision: str = "fp32",
    batch_size: int = 64,
    verify: bool = False,
    progress: Progress | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> int:
    """Scan what is missing of one part of the rows; whoever scans the other parts need not be known.

    Args:
        pictures: Pictures by row.
        rows: Of the whole, int64 [N].
        store: As for `scan`.
        part: (k, n): the k-th of n parts, from 1.
        model: As for `scan`.
        device: Where the model is; the pictures' device where not given.
        precision: fp32 or bf16.
        batch_size: Images at a time.
        verify: As for `scan`.
        progress: Told of the stage.
        stop_asked: Whether to stop.

    Returns:
        How many images went through the model.

    Raises:
        RecipeError: There is no such part.
    """
    number, count = part
    if not 1 <= number <= count:
        raise RecipeError(f"--part {number}/{count}: parts count from 1 to {count}")
    progress = progress or Progress(quiet=True)
    mine = share_of(rows, number - 1, count)
    places = look_up(pictures, mine, store, verify)
    missing = places.missing()
    filler = Filler(store, pictures, model, device or pictures.device, precision, batch_size)
    with progress.stage(f"scan part {number} of {count}", len(missing)) as advance:
        found, passed = filler.fill(mine[missing], stoppable(advance, stop_asked), places.digests[missing])
    warn_of_blank(found, mine[missing], pictures, progress)
    return passed


def share_of(rows: Rows, number: int, count: int) -> Rows:
    """The `number`-th of `count` shares, from 0: neighbours stay together, sizes differ by one at most."""
    return rows[number * len(rows) // count : (number + 1) * len(rows) // count]


def look_up(pictures: ImageInputs, rows: Rows, store: Store, verify: bool) -> Places:
    """What a store has of some rows; to verify, nothing but the digests that are expected of them."""
    if verify:
        store.check()
    places = store.look_up(pictures.images.states(rows))
    if verify:  # the digests stay, to be compared
        places.shard[:] = UNKNOWN
        places.reasons.clear()
    return places


def _planned(pictures: ImageInputs, rows: Rows, store: Store, others: Meeting, verify: bool) -> Places:
    """What the store has of all rows, as the main process finds it, in every process."""
    if others.num == 1:
        return look_up(pictures, rows, store, verify)
    if others.rank == 0:
        look_up(pictures, rows, store, verify).save(others.path("plan"))
    return Places.load(others.wait_for("plan"), store.folder)


def _together(
    places: Places, todo: Rows, mine: Places, passed: int, store: Store, others: Meeting
) -> tuple[Places, int]:
    """What the store has of all rows after every process scanned its share of those to do."""
    if others.num == 1:
        places.put(todo, mine)
        return places, passed
    others.say("passed", others.rank, str(passed))
    mine.save(others.path("share", others.rank))
    total = 0
    for rank in range(others.num):
        share = share_of(todo, rank, others.num)
        places.put(share, Places.load(others.wait_for("share", rank), store.folder))
        total += int(others.wait_for("passed", rank).read_text())
    return places, total


def warn_of_blank(places: Places, rows: Rows, pictures: ImageInputs, progress: Progress) -> None:
    """Say which of the images that were decoded just now are of one colour."""
    if places.blank:
        names = [pictures.images.names[int(row)] for row in rows[sorted(places.blank)]]
        progress.say(f"warning: {describe_blank(names, len(rows))}")


def found_in(places: Places, rows: Rows, pictures: ImageInputs, store: Store, passed: int) -> Scan:
    """The scan of rows that lie at these places."""
    names = pictures.images.names
    bad = [
        BadImage(int(place), names[int(rows[place])], places.reasons[int(place)])
        for place in np.flatnonzero(places.shard == BAD)
    ]
    return Scan(store.view(places), bad, places.digests, passed)


@torch.inference_mode()
def check_head_on_features(model: nn.Module, images: Tensor, features: Tensor) -> None:
    """Make sure that head(features) is the model's output.

    Args:
        model: In evaluation mode.
        images: A few, [B, 3, S, S], on its device.
        features: Of these, float32 [B, D] on the CPU.

    Raises:
        RecipeError: This backbone's head does more than one linear layer on its pooled features.
    """
    head = classifier_of(model)
    whole, ours = model(images).float().cpu(), head(features.to(head.weight.device)).float().cpu()
    if whole.shape != ours.shape or not torch.allclose(whole, ours, rtol=1e-2, atol=1e-2):
        raise RecipeError(
            "model.trainable: head does not work with this backbone, whose head does more than one linear layer;"
            " set model.trainable: last_stage"
        )


__all__ = ["Scan", "check_head_on_features", "features_of", "scan", "scan_part", "share_of"]
