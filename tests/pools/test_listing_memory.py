"""Files that would take many times what they hold: gaps of zeros, many columns of which a row has few."""

import json
import struct
import zipfile

import pytest

from homing.errors import DataError
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from packed_pools import png
from processes import LONG_ENOUGH, ended, start

SIZE = 400_000_000
MOST = 200  # MB beside the imports


def zip_with_a_directory_of_zeros(path, begun=b""):
    """Its end says that all of the file is the list of its members."""
    with path.open("wb") as file:
        file.write(begun)
        file.truncate(SIZE)
        file.seek(SIZE)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, SIZE, 0, 0))


def sparse(path, text=b""):
    with path.open("wb") as file:
        file.write(text)
        file.truncate(SIZE)


def wide_csv(path):
    names = [f"c{number}" for number in range(100_000)]
    path.write_text(f"path,{','.join(names)}\nnone.png,{','.join(names)}\n")


def sparse_jsonl(path):
    path.write_text("\n".join(json.dumps({"path": "none.png", f"c{number}": 1}) for number in range(12_000)))


WRITERS = {
    "a.csv": sparse,
    "b.csv": lambda path: sparse(path, b"path,label\n0.png,cat\n"),
    "a.jsonl": sparse,
    "b.jsonl": lambda path: sparse(path, b'{"path": "0.png", "label": "cat"}\n'),
    "wide.csv": wide_csv,
    "sparse.jsonl": sparse_jsonl,
    "a.zip": zip_with_a_directory_of_zeros,
}


def _measure(root, out):
    from homing.memory import peak_rss_mb

    before = peak_rss_mb()
    with pytest.raises(DataError) as caught:
        read_pool(PoolSpec(path=str(root)))
    out.write_text(f"{peak_rss_mb() - before} {caught.value}")


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_holds_little_takes_little(tmp_path, name):
    WRITERS[name](tmp_path / name)
    process = start(_measure, tmp_path / name, tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    grown, told = (tmp_path / "out").read_text().split(" ", 1)
    assert float(grown) < MOST
    assert told.startswith(f"{tmp_path / name}: ")
    assert len(told) < 500


def test_a_member_that_is_packed_as_more_than_it_holds_is_damaged(tmp_path):
    """Else all of a large zip file were read for one picture."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("cat/0.png", png(7, 0))
        data = bytearray(path.read_bytes())
        struct.pack_into("<L", data, data.rindex(b"cat/0.png") - 46 + 20, 4_000_000_000)
        path.write_bytes(data)
        with pytest.raises(OSError, match="damaged"):
            read_pool(PoolSpec(path=str(path))).size(0)
