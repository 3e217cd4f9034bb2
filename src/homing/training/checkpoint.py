"""Checkpoints that exist whole or not at all, and are verified before anything is loaded from them.

A folder `step-NNNNNN` holds safetensors files, `state.json`, and last of all `manifest.json` with the size and sha256
of each. It is written under another name, flushed to disk and renamed. No pickle anywhere. `docs/reliability.md` lists
what is promised and tested of it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from torch import Tensor

from homing.errors import CheckpointError
from homing.outputs.checkpoint_files import files_of, remove_checkpoint
from homing.training.tensor_file import Piece, tensor_pieces

FORMAT = 2
Reached = Callable[[str], None]
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """All that a fine-tuning needs to go on. tensors: file stem → name → tensor; state: plain JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    def copied(self) -> Checkpoint:
        """The same with tensors of its own."""
        copies = {part: {name: tensor.clone() for name, tensor in own.items()} for part, own in self.tensors.items()}
        return Checkpoint(copies, copy.deepcopy(self.state))


def save_checkpoint(
    folder: Path, step: int, checkpoint: Checkpoint, keep: int, reached: Reached = lambda stage: None
) -> Path:
    """Write `folder/step-NNNNNN`, then remove all but the `keep` newest.

    Args:
        folder: Of all checkpoints.
        step: Of this one.
        checkpoint: What to save.
        keep: How many of the newest stay, at least 1.
        reached: Told the name of each stage before it begins; the place where tests let a save fail or die.

    Raises:
        CheckpointError: The disk refused; what was there before is untouched.
    """
    final = folder / f"step-{step:06d}"
    temporary, aside = (folder / f".{final.name}.{os.getpid()}.{kind}.tmp" for kind in ("new", "old"))
    try:
        reached("make folder")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write_all(temporary, checkpoint, reached)
        if final.exists():
            reached("set the old one aside")
            os.rename(final, aside)
        reached("rename")
        os.rename(temporary, final)
        reached("flush parent")
        _flush(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside.exists() and not final.exists():
            os.rename(aside, final)
        raise CheckpointError(
            f"{final}: cannot be written ({error.strerror or error}); earlier checkpoints are untouched. Make room and"
            " start again with --resume"
        ) from error
    reached("prune")
    for _, old in _listed(folder)[:-keep]:
        with contextlib.suppress(OSError):  # under another name first: no half of a checkpoint under a valid one
            os.rename(old, folder / f".{old.name}.{os.getpid()}.old.tmp")
    for stale in folder.glob(".step-*.tmp"):
        with contextlib.suppress(OSError):
            _discard(stale)
    return final


def _discard(aside: Path) -> None:
    """Remove a checkpoint that lies under another name; what others put into it goes back to where they put it."""
    remove_checkpoint(aside)
    if aside.is_dir() and not aside.is_symlink():
        place = aside.with_name(aside.name.split(".")[1])
        place.mkdir(exist_ok=True)
        for path in aside.iterdir():
            if not (place / path.name).exists():
                os.rename(path, place / path.name)
        aside.rmdir()


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    found = _listed(folder)
    return found[-1][1] if found else None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after verifying every byte of it; changes nothing.

    Raises:
        CheckpointError: A file is missing, of another size or content, or of another format; names it.
    """
    listed, tensors, state = _manifest_of(path), {}, {}
    for name, (size, digest) in listed.items():
        data = _verified(path, name, size, digest)
        try:
            if name == "state.json":
                state = json.loads(data)
            else:
                tensors[name.removesuffix(".safetensors")] = load_tensors(data)
        except Exception as error:
            raise CheckpointError(f"{path}: passed its digests but cannot be read: {error}. {REMEDY}") from error
    return Checkpoint(tensors, state)


def check_identity(path: Path, saved: object, own: Mapping[str, str], *, allow_change: bool) -> None:
    """Whether a checkpoint belongs to a run.

    Args:
        path: Of the checkpoint, for messages.
        saved: Its identity.
        own: The run's: digests by name.
        allow_change: Whether pools, and what follows from them, may differ.

    Raises:
        CheckpointError: It does not; names what differs.
    """
    theirs = saved if isinstance(saved, dict) else {}
    changed = [key for key in sorted({*theirs, *own}) if theirs.get(key) != own.get(key)]
    if fixed := [key for key in changed if key not in _OF_POOLS]:
        raise CheckpointError(
            f"{path}: was written with another {', '.join(fixed)}; resume with what the run began with, or start again"
            " with --overwrite"
        )
    if changed and not allow_change:
        pools = [key for key in changed if key in ("source", "target", "unlabelled")] or changed
        raise CheckpointError(
            f"{path}: the {' and '.join(pools)} changed since it was written (rows came, went, moved, got new labels);"
            " put back what the run began with, or go on with --resume --allow-change: rates then follow the sample ids"
        )


_OF_POOLS = ("source", "target", "unlabelled", "fold", "rates")  # parts of an identity that follow from the pools
REMEDY = "Remove this checkpoint's folder to resume from the one before it, or start again with --overwrite"


def _write_all(folder: Path, checkpoint: Checkpoint, reached: Reached) -> None:
    files = {}
    for part, tensors in checkpoint.tensors.items():
        files[f"{part}.safetensors"] = _write(folder / f"{part}.safetensors", tensor_pieces(tensors), reached)
    state = json.dumps(checkpoint.state, indent=1).encode()
    files["state.json"] = _write(folder / "state.json", [state], reached)
    manifest: dict[str, Any] = {"format": FORMAT, "files": files}
    manifest["sha256"] = _digest_of(manifest)
    _write(folder / "manifest.json", [json.dumps(manifest, indent=1).encode()], reached)
    reached("flush folder")
    _flush(folder)


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """Digest of the manifest itself, so that damage to it is told from a later format."""
    return _sha256(json.dumps([manifest["format"], manifest["files"]], sort_keys=True).encode())


def _manifest_of(path: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of each file of a checkpoint, by the manifest."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        version, files = manifest["format"], manifest["files"]
        if manifest["sha256"] != _digest_of(manifest):
            raise ValueError("its own digest does not match")
        listed = files.items() if version == FORMAT else ()
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path / 'manifest.json'}: missing or damaged. {REMEDY}") from error
    if version != FORMAT:
        raise CheckpointError(
            f"{path}: written in format {version}, this version reads {FORMAT}; go on with the homing that wrote it, or"
            " start again with --overwrite"
        )
    for name in expected:
        if Path(name).name != name or "\0" in name:
            raise CheckpointError(f"{path / 'manifest.json'}: names a file outside the checkpoint: {name!r}")
    if "state.json" not in expected:
        raise CheckpointError(f"{path / 'manifest.json'}: does not list state.json. {REMEDY}")
    return expected


def _verified(path: Path, name: str, size: int, digest: str) -> bytes:
    """A file's bytes, checked against the manifest."""
    try:
        data = (path / name).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path / name}: missing ({error.strerror}). {REMEDY}") from error
    if len(data) != size or _sha256(data) != digest:
        raise CheckpointError(f"{path / name}: damaged, {len(data):,} bytes that do not match the manifest. {REMEDY}")
    return data


def _listed(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints by step; a folder of such a name with nothing of ours in it is none."""
    found = [(match, path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name)) and path.is_dir()]
    return sorted((int(match[1]), path) for match, path in found if files_of(path))


def _write(path: Path, pieces: Iterable[Piece], reached: Reached) -> dict[str, int | str]:
    """Write a file piece by piece; its size and sha256, for the manifest."""
    reached(f"write {path.name}")
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        reached(f"fsync {path.name}")
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
