"""What processes send one another: through the group's device alone, and with the outcome of a single process."""

from __future__ import annotations

import json
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from processes import end_group, start_group

OF_THE_MODEL = "homing.rates.alignment.direction"  # sends the model's own gradients, on its device
GATHERS = ("all_gather_single", "all_gather_into_tensor")  # since torch 2.14, and before
SENDS = ("all_reduce", "broadcast", "all_gather", *GATHERS, "reduce", "gather", "scatter")


def _refuse_other_tensors() -> list[str]:
    """The group takes tensors that were brought to its device, and no other: as nccl takes none from the CPU.

    Here the group's device is the CPU, as the model's is: so tensors are told apart by the way they came.
    """
    from homing.rates import table_rows
    from homing.training import distributed

    seen: list[str] = []
    brought = table_rows.on_group_device

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        found = brought(tensor).clone()
        found.was_brought = True
        return found

    for module in (table_rows, distributed):
        module.on_group_device = noted
    for name in filter(partial(hasattr, dist), SENDS):
        send = getattr(dist, name)

        def checked(*arguments, send=send, name=name, **more):
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.startswith("homing.") and caller != OF_THE_MODEL:
                assert all(getattr(one, "was_brought", False) for one in arguments if isinstance(one, torch.Tensor)), (
                    name
                )
                seen.append(name)
            return send(*arguments, **more)

        setattr(dist, name, checked)
    return seen


def _exchange(folder: Path, method: str) -> None:
    from accelerate import Accelerator
    from step_tunings import tune

    from homing.training.distributed import anywhere, gather_shares, mean_over_processes

    warnings.filterwarnings("error", message=".*torch.distributed.*deprecated", category=FutureWarning)
    seen = _refuse_other_tensors()
    tuning = tune(method, 9)
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    mine = torch.arange(7.0)[rank::2, None]
    assert torch.equal(gather_shares([mine], 7, accelerator), torch.arange(7.0)[:, None])
    assert gather_shares([torch.ones(1, 2)] if rank == 0 else [], 1, accelerator).tolist() == [[1.0, 1.0]]
    assert anywhere(accelerator, rank == 1, False) == [True, False]
    assert float(mean_over_processes(torch.ones(3) if rank else torch.empty(0))) == 1.0
    (folder / f"seen-{rank}").write_text(json.dumps(sorted(set(seen))))
    if rank == 0:
        save_file({"weight": tuning.raw_model.weight.detach(), "rates": tuning.rates_now()}, folder / "found")


@pytest.mark.parametrize("method", ["instance", "l2rw", "meta_weight_net"])
def test_every_tensor_goes_through_the_groups_device_and_two_processes_learn_as_one(tmp_path, method):
    from step_tunings import tune

    end_group(start_group(_exchange, 2, tmp_path, method))
    gather = next(name for name in GATHERS if hasattr(dist, name))
    assert {"all_reduce", gather} <= set(json.loads((tmp_path / "seen-1").read_text()))
    alone, found = tune(method, 9), load_file(tmp_path / "found")
    # fp32 sums in another order
    torch.testing.assert_close(found["weight"], alone.raw_model.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["rates"], alone.rates_now(), rtol=1e-4, atol=1e-5)


def _statistics(pictures: Path, folder: Path) -> None:
    from resumable import resumable

    tuning = resumable("bn", pictures, folder, every=4, num_steps=6)
    tuning.run()
    rank = tuning.accelerator.process_index
    save_file({k: v.contiguous() for k, v in tuning.raw_model.state_dict().items()}, folder / f"model-{rank}")
    own = tuning.average.module.state_dict()
    save_file({k: v.contiguous() for k, v in own.items()}, folder / f"average-{rank}")


def test_statistics_of_batch_norms_are_those_of_all_processes(tmp_path):
    from resumable import draw

    pictures = draw(tmp_path / "pictures")
    end_group(start_group(_statistics, 2, pictures, tmp_path / "run"))
    for name in ("model", "average"):
        one, two = (load_file(tmp_path / "run" / f"{name}-{rank}") for rank in (0, 1))
        assert [key for key in one if not torch.equal(one[key], two[key])] == []
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-000006" / "ema.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in load_file(tmp_path / "run" / "average-1").items())


def _see(folder: Path) -> None:
    from accelerate import Accelerator

    from homing.errors import DataError
    from homing.training.distributed import agree

    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    agree(accelerator, "the pools", "the same")
    with pytest.raises(DataError, match=r"^process 2 of 3 found the pools to be different") as told:
        agree(accelerator, "the pools", "other" if rank == 2 else "usual")
    (folder / f"told-{rank}").write_text(str(told.value))


def test_processes_that_see_something_else_are_named_in_every_process(tmp_path):
    end_group(start_group(_see, 3, tmp_path))
    assert len({(tmp_path / f"told-{rank}").read_text() for rank in range(3)}) == 1
