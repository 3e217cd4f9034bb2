"""Models that are wrapped, compiled, checkpointed, in another memory format or precision."""

import pytest
import torch
import torch.distributed as dist
from alignment_models import batch, direction_of, losses_of, patches
from references import per_sample_loop
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from homing.rates import Alignment, AlignmentError, Direction
from processes import together

torch.set_num_threads(1)


def observe(model, images, labels, direction):
    alignment = Alignment(model)
    with alignment.observe(direction):
        losses_of(model(images), labels).mean().backward()
    return alignment.values()


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.stem = nn.Linear(192, 16).double()
        self.block = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3)).double()
        self.reentrant = reentrant

    def forward(self, images):
        x = self.stem(images.flatten(1))
        if self.reentrant is None:
            return self.block(x)
        return checkpoint(self.block, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant):
    torch.manual_seed(0)
    plain = Checkpointed(None)
    checkpointed = Checkpointed(reentrant)
    checkpointed.load_state_dict(plain.state_dict())
    images, labels = batch()
    found = observe(checkpointed, images, labels, direction_of(plain))
    assert relative(found, observe(plain, images, labels, direction_of(plain))) < 1e-12


@pytest.mark.parametrize("passed", ["compiled", "raw"])
@pytest.mark.parametrize("called", ["compiled", "raw", "in place", "a function"])
def test_compiled_model_runs_uncompiled_in_observed_steps(passed, called):
    model, (images, labels) = patches(), batch()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    plain = observe(model, images, labels, direction_of(model))
    compiled = torch.compile(model, backend=backend)
    if called == "in place":
        model.compile(backend=backend)
    call = {"compiled": compiled, "a function": torch.compile(lambda images: model(images), backend=backend)}
    call = call.get(called, model)
    alignment = Alignment(compiled if passed == "compiled" else model)
    for num_graphs in (0, 1):  # before anything was compiled, and after
        assert bool(graphs) == bool(num_graphs)
        with alignment.observe(direction_of(model)):
            losses_of(call(images), labels).mean().backward()
        assert relative(alignment.values(), plain) < 1e-12
        assert bool(graphs) == bool(num_graphs)
        (compiled if called == "raw" else call)(images)
        assert graphs


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # asked for by dynamo
def test_a_compiled_part():
    model, (images, labels) = patches(), batch()
    model.block = torch.compile(model.block, backend="eager")
    model(images)
    direction = Direction(model)
    direction.update(losses_of(model(images), labels).mean())
    expected = per_sample_loop(model, losses_of, images, labels, direction)
    assert relative(observe(model, images, labels, direction), expected) < 1e-12


def test_channels_last():
    model, (images, labels) = patches(), batch()
    plain = observe(model, images, labels, direction_of(model))
    model = model.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    assert relative(observe(model, images, labels, direction_of(model)), plain) < 1e-10


def test_bf16_autocast_is_as_exact_as_its_own_gradients():
    model, (images, labels) = patches(torch.float32), batch(dtype=torch.float32)
    direction, alignment = direction_of(model), Alignment(model)
    with alignment.observe(direction), torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model(images), labels)
        losses.mean().backward()
    with torch.autocast("cpu", torch.bfloat16):
        expected = per_sample_loop(model, losses_of, images, labels, direction)
    assert alignment.values().dtype == torch.float32
    assert relative(alignment.values(), expected) < 0.03  # bf16 has 8 bits of mantissa


def test_bf16_autocast_with_the_backward_pass_outside_of_it():
    model, (images, labels) = patches(torch.float32), batch(dtype=torch.float32)
    alignment = Alignment(model)
    exact = observe(model, images, labels, direction_of(model))
    with alignment.observe(direction_of(model)):
        with torch.autocast("cpu", torch.bfloat16):
            losses = losses_of(model(images), labels)
        losses.mean().backward()
    assert relative(alignment.values(), exact) < 0.05


def test_fp16_is_refused():
    model, (images, labels) = patches(torch.float32), batch(dtype=torch.float32)
    with (
        pytest.raises(AlignmentError, match="bf16 or fp32"),
        Alignment(model).observe(direction_of(model)),
        torch.autocast("cpu", torch.float16),
    ):
        losses_of(model(images), labels).mean().backward()


@pytest.mark.filterwarnings("ignore:.*DataParallel.*")
def test_data_parallel_is_refused():
    with pytest.raises(AlignmentError, match="DistributedDataParallel"):
        Alignment(nn.DataParallel(patches()))


@pytest.fixture
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("part", ["", "block"])
def test_sharded_models_are_refused_whenever_they_were_sharded(mesh, part):
    model, (images, labels) = patches(), batch()
    alignment, direction = Alignment(model), Direction(model)
    state = {name: value + 1 for name, value in model.state_dict().items()}
    fully_shard(model.get_submodule(part), mesh=mesh, reshard_after_forward=False)
    loss = losses_of(model(images), labels).mean()
    for refused in (
        lambda: Alignment(model),
        lambda: Direction(model),
        lambda: direction.update(loss),
        lambda: direction.towards(state),
        lambda: alignment.observe(direction_of(patches())).__enter__(),
    ):
        with pytest.raises(AlignmentError, match=r"sharded .*DistributedDataParallel"):
            refused()


def test_model_run_by_something_else_than_python_is_refused():
    with pytest.warns((FutureWarning, DeprecationWarning), match="jit"):
        traced = torch.jit.trace(nn.Linear(3, 2), torch.zeros(1, 3))
    with pytest.raises(AlignmentError, match="traced"):
        Alignment(traced)


def _wrapped_in_ddp(folder):
    model, (images, labels) = patches(), batch()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    rank, world = dist.get_rank(), dist.get_world_size()
    mine = slice(rank * 6 // world, (rank + 1) * 6 // world)
    values = observe(wrapped, images[mine], labels[mine], direction_of(model))
    torch.save((values, model.head.weight.grad), folder / f"{rank}.pt")


@pytest.mark.parametrize("world", [1, 2])
def test_distributed_data_parallel(world, tmp_path):
    together(_wrapped_in_ddp, world, tmp_path)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    model, (images, labels) = patches(), batch()
    plain = observe(model, images, labels, direction_of(model))
    assert relative(torch.cat([values for values, _ in parts]), plain) < 1e-10
    for _, gradient in parts:
        assert torch.allclose(gradient, model.head.weight.grad, rtol=1e-10)
