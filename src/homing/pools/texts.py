"""Texts by row, held by Arrow: ten million ids take what their bytes take, and no Python object each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_PIECE = 65_536  # texts that are Python objects at a time
_CHUNK_BYTES = 1 << 30  # of an array with 32-bit offsets


class Texts(Sequence[str]):
    """A sequence of texts that is an Arrow array inside; equal to a tuple or list of the same texts.

    Args:
        texts: Python texts, or an Arrow array of strings, plain or dictionary-encoded; a null becomes an empty text.

    Raises:
        UnicodeEncodeError: A text holds lone surrogates (the name of a file that is not UTF-8).
    """

    __slots__ = ("_array",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, texts: Iterable[str] | pa.Array | pa.ChunkedArray = ()) -> None:
        self._array: Any
        if isinstance(texts, Texts):
            self._array = texts._array
        elif isinstance(texts, pa.Array | pa.ChunkedArray):
            self._array = _normal(texts)
        else:
            self._array = pa.array(texts if isinstance(texts, Sequence) else list(texts), pa.large_string())

    @classmethod
    def constant(cls, text: str, num: int) -> Texts:
        """One text for each of `num` rows."""
        return cls.encoded(np.zeros(num, np.int32), [text])

    @classmethod
    def encoded(cls, codes: npt.NDArray[np.int32], names: Iterable[str]) -> Texts:
        """Texts that are few: `names[codes]`, kept so."""
        held = pa.array(list(names), pa.large_string())
        return cls(pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), held))

    @classmethod
    def concat(cls, parts: Sequence[Texts]) -> Texts:
        """Several, one behind the other."""
        arrays = [part._array for part in parts]
        if arrays and all(pa.types.is_dictionary(array.type) for array in arrays):
            return cls(pa.chunked_array(arrays).unify_dictionaries())
        return cls(pa.chunked_array([part.plain() for part in parts], pa.large_string()))

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: SupportsIndex | slice) -> str | Texts:
        if not isinstance(index, slice):
            return str(self._array[int(index)].as_py())
        start, stop, step = index.indices(len(self))
        if step == 1:
            return Texts(self._array.slice(start, max(0, stop - start)))
        return self.take(np.arange(start, stop, step))

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _PIECE):
            yield from self._array.slice(start, _PIECE).to_pylist()

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._find(text) >= 0

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple | list):
            return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))
        if not isinstance(other, Texts):
            return NotImplemented
        return len(self) == len(other) and bool(self.plain().equals(other.plain()))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Texts({shown}{', ...' if len(self) > 3 else ''}; {len(self):,})"

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Position of the first row with this text.

        Raises:
            ValueError: There is none.
        """
        found = self._find(value, *slice(start, stop).indices(len(self))[:2])
        if found < 0:
            raise ValueError(f"{value!r} is not among the {len(self):,} texts")
        return found

    def take(self, rows: npt.NDArray[np.int64] | Sequence[int]) -> Texts:
        """The texts of some rows, in their order."""
        return Texts(self._array.take(pa.array(np.asarray(rows, np.int64))))

    def with_prefix(self, prefix: str) -> Texts:
        """Each text with another in front."""
        if pa.types.is_dictionary(self._array.type):
            names = _join(pa.scalar(prefix, pa.large_string()), self._array.dictionary)
            return Texts(pa.DictionaryArray.from_arrays(self._array.indices, names))
        return Texts(_join(pa.scalar(prefix, pa.large_string()), self._array))

    def to_arrow(self) -> pa.ChunkedArray:
        """The texts as Arrow's ordinary strings, or a dictionary of such where they are kept so."""
        if pa.types.is_dictionary(self._array.type):
            return pa.chunked_array([_narrow_dictionary(self._array)])
        pieces = max(1, self._array.nbytes // _CHUNK_BYTES + 1)
        length = -(-len(self) // pieces) or 1
        parts = [self._array.slice(start, length) for start in range(0, len(self), length)]
        return pa.chunked_array([part.cast(pa.string()) for part in parts], pa.string())

    def encode(self) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
        """Position of each row's text in a list of the different ones, int32 [len(self)], and that list, sorted."""
        array = self._array if pa.types.is_dictionary(self._array.type) else self._array.dictionary_encode()
        codes = array.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
        held = array.dictionary.to_pylist()
        counts = np.bincount(codes, minlength=len(held))
        names = sorted({name for name, count in zip(held, counts, strict=True) if count})
        place = {name: position for position, name in enumerate(names)}
        return np.array([place.get(name, -1) for name in held], np.int32)[codes], tuple(names)

    def unique(self) -> tuple[str, ...]:
        """The different texts, sorted."""
        if not pa.types.is_dictionary(self._array.type):
            return tuple(sorted(self._array.unique().to_pylist()))
        return tuple(sorted(set(self._array.dictionary.take(self._array.indices.unique()).to_pylist())))

    def map_names(self, function: Any) -> Texts:
        """A function of each different text, for texts that are few; keeps them encoded."""
        codes, names = self.encode()
        return Texts.encoded(codes, [function(name) for name in names])

    def order(self) -> npt.NDArray[np.int64]:
        """Rows in the order of their texts' code points; int64 [len(self)]."""
        plain = self.plain()
        if len(plain) < 2 or pc.all(pc.less_equal(plain[:-1], plain[1:])).as_py():
            return np.arange(len(plain))
        return np.asarray(pc.sort_indices(plain).to_numpy(), dtype=np.int64)

    def first_double(self) -> int | None:
        """A row whose text another row has too; None where all differ."""
        order = self.order()
        ordered = self.take(order).plain()
        same = pc.equal(ordered[:-1], ordered[1:]) if len(ordered) > 1 else pa.array([], pa.bool_())
        place = pc.index(same, True).as_py()
        return None if place < 0 else int(order[place])

    def digest(self) -> str:
        """sha256 over the texts in their order, 64 hexadecimal digits."""
        return digest_of(self)

    def feed(self, digest: Any) -> None:
        """Give a hash the length (8 bytes, little-endian) and the UTF-8 bytes of each text, in order."""
        for start in range(0, len(self), _PIECE):
            part = self[start : start + _PIECE].plain()
            lengths = pc.binary_length(part).to_numpy(zero_copy_only=False).astype("<i8")
            heads = pa.Array.from_buffers(pa.binary(8), len(part), [None, pa.py_buffer(lengths)])
            digest.update(_data(_join(heads.cast(pa.large_binary()), part.cast(pa.large_binary()))))

    def _find(self, text: str, start: int = 0, stop: int | None = None) -> int:
        part = self._array.slice(start, None if stop is None else max(0, stop - start))
        place = pc.index(_decoded(part), pa.scalar(text, pa.large_string())).as_py()
        return int(place) + start if place >= 0 else -1

    def plain(self) -> pa.Array:
        """The texts as one array of Arrow's large strings (64-bit offsets)."""
        return _decoded(self._array)


def digest_of(*texts: Texts) -> str:
    """sha256 over several sequences of texts one after the other: changes with any text and with their order."""
    digest = hashlib.sha256()
    for part in texts:
        part.feed(digest)
    return digest.hexdigest()


def digest_of_pairs(first: Texts, second: Texts) -> str:
    """sha256 over the pairs of two columns whatever their order: changes when rows come, go or change.

    Each pair is the line `length of the first:first second` (without the space); the lines are sorted.
    """
    lengths = pc.utf8_length(first.plain()).cast(pa.large_string())
    colon, end = pa.scalar(":", pa.large_string()), pa.scalar("\n", pa.large_string())
    lines = Texts(_join(lengths, colon, first.plain(), second.plain(), end))
    del lengths
    digest, order = hashlib.sha256(), lines.order()
    for start in range(0, len(lines), _PIECE):
        digest.update(_data(lines.take(order[start : start + _PIECE]).plain().cast(pa.large_binary())))
    return digest.hexdigest()


def _normal(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array of large strings, or of a dictionary of them with 32-bit codes; no nulls."""
    if isinstance(texts, pa.ChunkedArray):
        if pa.types.is_dictionary(texts.type):
            texts = texts.unify_dictionaries()
        else:
            texts = texts.cast(pa.large_string())  # before the pieces become one, which may hold more than 2 GB
        texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    if isinstance(texts, pa.ChunkedArray):  # an empty one
        texts = pa.array([], texts.type)
    if not pa.types.is_dictionary(texts.type):
        plain = texts.cast(pa.large_string())
        return pc.fill_null(plain, "") if plain.null_count else plain
    if texts.null_count or texts.dictionary.null_count:
        return _normal(_normal(texts.dictionary_decode())).dictionary_encode()
    return pa.DictionaryArray.from_arrays(texts.indices.cast(pa.int32()), texts.dictionary.cast(pa.large_string()))


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _narrow_dictionary(array: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.string()))


def _join(*parts: Any) -> pa.Array:
    kind = next(part.type for part in parts)
    return pc.binary_join_element_wise(*parts, pa.scalar(b"" if pa.types.is_large_binary(kind) else "", kind))


def _data(array: pa.Array) -> memoryview:
    """The bytes of all texts of an array of 64-bit offsets, one behind the other."""
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    return memoryview(array.buffers()[2])[offsets[0] : offsets[-1]] if len(array) and offsets[-1] else memoryview(b"")
