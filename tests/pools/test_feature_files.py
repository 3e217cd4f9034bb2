"""Files of features that are damaged, or something else than they are called: a sentence that names the file."""

import io
import json
import os

import numpy as np
import pytest

from homing.errors import DataError
from homing.pools.tables import open_table
from homing.pools.vectors import open_vectors

ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)
NUMBERS = ROWS.tobytes()


@pytest.fixture
def table(tmp_path):
    (tmp_path / "t.csv").write_text("id,label\n" + "".join(f"{row},a\n" for row in range(4)))
    return open_table(tmp_path / "t.csv")


def npy(header="{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2), }", version=b"\1\0"):
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + NUMBERS


def npz():
    file = io.BytesIO()
    np.savez(file, ROWS)
    return file.getvalue()


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([["a", None]], object), allow_pickle=True)
    return file.getvalue()


def shaped(shape):
    return npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}")


NPY = {
    "an npz": npz(),
    "a pickle": pickled(),
    "truncated": npy()[:-4],
    "deep": npy("(" * 9_000),
    "deep, closed": npy("(" * 300 + ")" * 300),
    "open string": npy("{'"),
    "no header": npy("5"),
    "too large": shaped((2**40, 2**40)),
    "negative": shaped((-4, -2)),
}


@pytest.mark.parametrize("data", NPY.values(), ids=NPY)
def test_an_npy_that_is_none(table, tmp_path, data):
    (tmp_path / "f.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"f\.npy: cannot be read as features \(.+\)"):
        open_vectors(table, str(tmp_path / "f.npy"))


def safetensors(header, length=None, numbers=NUMBERS):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + numbers


def entry(**changes):
    return {"f": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]} | changes}


SAFETENSORS = {
    "deep": safetensors(b"[" * 100_000),
    "deep in a tensor": safetensors(b'{"f":' + b"[" * 100_000),
    "header of more than there is": safetensors(entry(), length=90_000_000),
    "header of half of it": safetensors(entry(), length=20),
    "length alone": b"\x05\0\0",
    "numbers lack": safetensors(entry(), numbers=b""),
    "no texts": safetensors(b"\xff" * 40),
    "overflowing": safetensors(entry(shape=[2**32, 2**32], data_offsets=[0, 0])),
    "negative": safetensors(entry(shape=[-4, -2])),
    "texts for numbers": safetensors(entry(shape=["4", 2])),
    "fractions": safetensors(entry(shape=[4.0, 2])),
    "infinite": safetensors(b'{"f": {"dtype": "F32", "shape": [Infinity, 2], "data_offsets": [0, 32]}}'),
    "a list for a type": safetensors(entry(dtype=["F32"])),
    "three offsets": safetensors(entry(data_offsets=[0, 32, 0])),
    "a number for a shape": safetensors(entry(shape=4)),
}


@pytest.mark.parametrize("data", SAFETENSORS.values(), ids=SAFETENSORS)
def test_a_safetensors_file_that_is_none(table, tmp_path, data):
    (tmp_path / "f.safetensors").write_bytes(data)
    with pytest.raises(DataError, match=r"f\.safetensors: cannot be read as features \(.+\)"):
        open_vectors(table, str(tmp_path / "f.safetensors"))


def test_sound_files_are_read(table, tmp_path):
    (tmp_path / "f.npy").write_bytes(npy())
    (tmp_path / "f.safetensors").write_bytes(safetensors(entry()))
    for name in ("f.npy", "f.safetensors"):
        assert np.array_equal(open_vectors(table, str(tmp_path / name))[:], ROWS)


def test_features_in_a_pipe_are_not_waited_for(table, tmp_path):
    for name in ("f.npy", "f.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="is a pipe"):
            open_vectors(table, str(tmp_path / name))
