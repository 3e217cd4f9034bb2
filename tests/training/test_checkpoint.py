"""A checkpoint is whole and verified, or it does not load at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from homing.errors import CheckpointError
from homing.training.checkpoint import (
    FORMAT,
    Checkpoint,
    _digest_of,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from homing.training.optimizer import optimizer_from_plain, optimizer_to_plain


def some_checkpoint() -> Checkpoint:
    tensors = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "rates": {"rate": torch.ones(4)}}
    return Checkpoint(tensors, {"step": 3, "identity": {"recipe": "abc"}})


def test_what_was_saved_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path, 3, some_checkpoint(), keep=2)
    assert path.name == "step-000003"
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.tensors["model"]["weight"], torch.arange(6.0).reshape(2, 3))
    assert loaded.state == {"step": 3, "identity": {"recipe": "abc"}}


def test_only_the_newest_are_kept_and_found(tmp_path):
    for step in (1, 2, 10, 11):
        save_checkpoint(tmp_path, step, some_checkpoint(), keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-000010", "step-000011"]
    assert newest_checkpoint(tmp_path).name == "step-000011"
    assert newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("file", ["model.safetensors", "rates.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "delete", "append"])
def test_any_damage_is_detected_and_named(tmp_path, file, damage):
    path = save_checkpoint(tmp_path, 3, some_checkpoint(), keep=2) / file
    data = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        if damage == "flip":
            data[len(data) // 2] ^= 1
        changed = {"truncate": data[:-1], "flip": data, "empty": b"", "append": data + b"x"}[damage]
        path.write_bytes(bytes(changed))
    if file == "manifest.json" and damage in ("append",):
        path.write_bytes(bytes(data) + b"}")
    with pytest.raises(CheckpointError) as told:
        load_checkpoint(tmp_path / "step-000003")
    assert "step-000003" in str(told.value)


@pytest.mark.parametrize("other", [1, 99])
def test_another_format_is_refused_in_one_sentence(tmp_path, other):
    path = save_checkpoint(tmp_path, 3, some_checkpoint(), keep=2) / "manifest.json"
    manifest = json.loads(path.read_text()) | {"format": other}
    path.write_text(json.dumps(manifest | {"sha256": _digest_of(manifest)}))
    with pytest.raises(CheckpointError, match=rf"written in format {other}, this version reads \d+; go on with"):
        load_checkpoint(path.parent)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"])
def test_tensors_of_every_type_layout_and_size_are_written_as_safetensors_read_them(tmp_path, dtype):
    kind = getattr(torch, dtype)
    tensors = {
        "": torch.arange(24).reshape(2, 3, 4).to(kind).permute(2, 0, 1),
        "scalar": torch.tensor(1).to(kind),
        "none": torch.empty(0, 3, dtype=kind),
        "odd": torch.ones(3, dtype=torch.uint8),
        "large": torch.zeros(9_000_001, dtype=torch.uint8),  # more than one piece
    }
    path = save_checkpoint(tmp_path, 3, Checkpoint({"own": tensors}, {}), keep=2)
    for found in (load_checkpoint(path).tensors["own"], load_file(path / "own.safetensors")):
        assert sorted(found) == sorted(tensors)
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


def test_a_manifest_cannot_reach_outside_its_folder(tmp_path):
    (tmp_path / "secret").write_text("x")
    path = save_checkpoint(tmp_path, 3, some_checkpoint(), keep=2) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../secret"] = {"bytes": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest | {"sha256": _digest_of(manifest)}))
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        load_checkpoint(path.parent)


@pytest.mark.parametrize(
    "stage",
    [
        *("make folder", "write model.safetensors", "fsync model.safetensors", "write rates.safetensors"),
        *("write state.json", "fsync state.json", "write manifest.json", "fsync manifest.json", "flush folder"),
        *("set the old one aside", "rename"),
    ],
)
@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_write_flush_or_rename_that_fails_leaves_what_was_there(tmp_path, stage, failure):
    """The checkpoint of the same step too, which was about to be replaced."""
    older = some_checkpoint()
    for step in (2, 3):
        save_checkpoint(tmp_path, step, older, keep=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def reached(name: str) -> None:
        if name == stage:
            raise OSError(failure, os.strerror(failure))

    newer = Checkpoint({**older.tensors, "model": {"weight": torch.zeros(9)}}, older.state)
    with pytest.raises(CheckpointError, match=f"{os.strerror(failure)}.*earlier checkpoints are untouched.*--resume"):
        save_checkpoint(tmp_path, 3, newer, 2, reached)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sorted(os.listdir(tmp_path)) == ["step-000002", "step-000003"]


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, canary) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("file", ["model.safetensors", "rates.safetensors", "state.json", "manifest.json"])
def test_a_pickle_in_any_file_is_never_executed_even_with_digests_that_fit(tmp_path, file):
    bomb = pickle.dumps(Bomb(tmp_path / "canary"))
    path = save_checkpoint(tmp_path / "run", 3, some_checkpoint(), keep=2)
    (path / file).write_bytes(bomb)
    if file != "manifest.json":
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][file] = {"bytes": len(bomb), "sha256": hashlib.sha256(bomb).hexdigest()}
        (path / "manifest.json").write_text(json.dumps(manifest | {"sha256": _digest_of(manifest)}))
    with pytest.raises(CheckpointError, match=r"step-000003.*--overwrite"):
        load_checkpoint(path)
    assert not (tmp_path / "canary").exists()
    pickle.loads(bomb)  # noqa: S301 - it does bite
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "files",
    [None, [], {"model.safetensors": None}, {"model.safetensors": {"bytes": 1}}, {"a\0b": {"bytes": 1, "sha256": ""}}],
)
def test_a_manifest_that_makes_no_sense_is_refused_even_with_a_digest_that_fits(tmp_path, files):
    path = save_checkpoint(tmp_path, 3, some_checkpoint(), keep=2) / "manifest.json"
    manifest = {"format": FORMAT, "files": files}
    path.write_text(json.dumps(manifest | {"sha256": _digest_of(manifest)}))
    with pytest.raises(CheckpointError, match="step-000003"):
        load_checkpoint(path.parent)


def test_a_full_disk_leaves_earlier_checkpoints_and_no_stump(tmp_path):
    """A real limit on file size, in a process of its own."""
    save_checkpoint(tmp_path, 1, some_checkpoint(), keep=2)
    script = textwrap.dedent(
        f"""
        import resource, signal, sys, torch
        from pathlib import Path
        from homing.errors import CheckpointError
        from homing.training.checkpoint import Checkpoint, save_checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(Path({str(tmp_path)!r}), 2, Checkpoint({{"model": {{"w": torch.zeros(100_000)}}}}, {{}}), 2)
        except CheckpointError as error:
            sys.exit(error.exit_code if "--resume" in str(error) else 1)
        """
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 5
    assert os.listdir(tmp_path) == ["step-000001"]
    load_checkpoint(tmp_path / "step-000001")


def test_a_process_killed_while_saving_leaves_only_whole_checkpoints(tmp_path):
    script = textwrap.dedent(
        f"""
        import torch
        from pathlib import Path
        from homing.training.checkpoint import Checkpoint, save_checkpoint
        for step in range(1, 10_000):
            checkpoint = Checkpoint({{"model": {{"w": torch.rand(500_000)}}}}, {{}})
            save_checkpoint(Path({str(tmp_path)!r}), step, checkpoint, 2)
            print(step, flush=True)
        """
    )
    for kills in range(3):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2 + kills):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        load_checkpoint(newest_checkpoint(tmp_path))


@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam"])
def test_an_optimizer_survives_its_plain_form(name):
    def make():
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(3, 2))
        return weight, getattr(torch.optim, name)([weight], lr=0.1)

    weight, optimizer = make()
    twin, other = make()
    for step in range(4):
        if step == 2:
            tensors, plain = optimizer_to_plain(optimizer)
            twin.data.copy_(weight.data)
            saved = {name: tensor.clone() for name, tensor in tensors.items()}
            optimizer_from_plain(other, saved, json.loads(json.dumps(plain)))
        for parameter, active in ((weight, optimizer), (twin, other)):
            if step >= 2 or active is optimizer:
                parameter.grad = torch.full_like(parameter, 0.1 * (step + 1))
                active.step()
    assert torch.equal(weight, twin)
