"""Whoever would share an epoch out a second time, or pad it, is told how not to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from homing.errors import DataError
from homing.rates import RateBatchSampler, RateSampler
from processes import together

RATES = torch.rand(50, generator=torch.Generator().manual_seed(0))


def _read(name: str) -> str:
    """What is said when such a loader is read in one of two processes."""
    import accelerate

    even = accelerate.DataLoaderConfiguration(even_batches=False)
    alone = {"rank": 0, "world_size": 1}
    loaders = {
        "shared twice": lambda: accelerate.Accelerator().prepare(
            DataLoader(range(50), sampler=RateSampler(RATES), batch_size=4)
        ),
        "batches shared twice": lambda: accelerate.Accelerator().prepare(
            DataLoader(range(50), batch_sampler=RateBatchSampler(RateSampler(RATES), 4))
        ),
        "padded": lambda: accelerate.Accelerator().prepare(
            DataLoader(range(50), sampler=RateSampler(RATES, **alone), batch_size=4)
        ),
        "uneven on demand": lambda: accelerate.Accelerator(dataloader_config=even).prepare(
            DataLoader(range(50), sampler=RateSampler(RATES, **alone), batch_size=4)
        ),
        "dropped on demand": lambda: accelerate.Accelerator().prepare(
            DataLoader(range(50), sampler=RateSampler(RATES, **alone), batch_size=4, drop_last=True)
        ),
        "around another": lambda: DataLoader(range(50), sampler=_Around(RateSampler(RATES)), batch_size=4),
        "padded around": lambda: DataLoader(range(50), sampler=_Around(RateSampler(RATES, 49, **alone)), batch_size=4),
        "even around": lambda: DataLoader(range(50), sampler=_Around(RateSampler(RATES, **alone)), batch_size=4),
    }
    try:
        return str(sum(len(batch) for batch in loaders[name]()))
    except DataError as error:
        return str(error)


class _Around(DistributedSampler):
    """As frameworks and forums write it: a distributed sampler over the rows that another one gives."""

    def __init__(self, sampler) -> None:
        super().__init__(sampler)
        self.sampler = sampler

    def __iter__(self):
        rows = list(self.sampler)
        return (rows[place % len(rows)] for place in super().__iter__())


def _note(folder: Path, names: tuple[str, ...]) -> None:
    said = {name: _read(name) for name in names}
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(said))


def test_a_share_that_would_be_taken_twice_is_refused(tmp_path):
    names = ("shared twice", "batches shared twice", "padded", "uneven on demand", "dropped on demand")
    together(_note, 2, tmp_path, (*names, "around another", "padded around", "even around"))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for said in (first, second):
        for name in names[:2]:
            assert "shares the batches of this loader out over 2 processes, and the sampler has done so" in said[name]
            assert "give the sampler rank=0, world_size=1" in said[name]
        assert (
            "50 rows are no multiple of 8 (batch size and processes); give the sampler num_samples=56" in said["padded"]
        )
        assert (
            "_Around shares the rows of this sampler out over 2 processes: rows would be lost" in said["around another"]
        )
        assert "49 rows are no multiple of it and are padded; leave it away" in said["padded around"]
        assert said["even around"] == "25"
    assert int(first["uneven on demand"]) + int(second["uneven on demand"]) == 50
    assert first["dropped on demand"] == second["dropped on demand"] == "24"
