"""Tensors as a safetensors file, piece by piece: what is written is never held in memory a second time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

Piece = bytes | memoryview
_PIECE = 1 << 23  # bytes
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def tensor_pieces(tensors: Mapping[str, Tensor]) -> Iterator[Piece]:
    """The bytes of a safetensors file, the same for the same names and values.

    Args:
        tensors: On any device, in any memory layout; one at a time is brought to the CPU.

    Raises:
        KeyError: A tensor is of a type that such files do not have.
    """
    # wide types first, so that every tensor begins at a multiple of its elements' size
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content = flat.numpy().data
        yield from (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))
