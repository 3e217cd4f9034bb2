"""Schemas that files of one table, or what datasets wrote into them, do not agree on: a sentence, no traceback."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from homing.errors import DataError
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from packed_pools import png


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


BYTES = [png(7, number) for number in range(2)]
STRUCTS = pa.array([{"bytes": data, "path": None} for data in BYTES])
PATHS = pa.array(["0.png", "1.png"])
IN_LISTS = pa.array([{"bytes": list(data), "path": None} for data in BYTES])


@pytest.fixture
def files(tmp_path):
    """Writes two files of one table, whose images are of these."""

    def write(*columns):
        for number, column in enumerate(columns):
            pq.write_table(pa.table({"image": column, "label": ["a", "b"]}), tmp_path / f"{number}.parquet")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("first", "second"),
    [(BYTES, PATHS), (PATHS, BYTES), (STRUCTS, PATHS), (PATHS, STRUCTS), (STRUCTS, IN_LISTS), (BYTES, [1, 2])],
)
def test_images_of_two_kinds_in_one_table_are_refused(files, first, second):
    with pytest.raises(DataError, match=r"'image' is of another kind in 0\.parquet .* than in 1\.parquet"):
        pool_at(files(first, second))


def test_bytes_structs_and_nothing_in_files_of_one_table_are_read(files):
    pool = pool_at(files(BYTES, STRUCTS, pa.array(BYTES, pa.large_binary()), pa.nulls(2)))
    assert [pool.read(row) for row in range(6)] == BYTES * 3
    with pytest.raises(OSError, match="no image"):
        pool.read(6)


def labelled(path, metadata, labels=(0, 1)):
    table = pa.table({"image": STRUCTS, "label": list(labels)})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), path / "a.parquet")
    return path / "a.parquet"


def features(**found):
    return json.dumps({"info": {"features": found}})


@pytest.mark.parametrize(
    "names", [5, 0, "cat", {"cat": 0, "dog": 1}, [], ["cat"], [1, 2], [None, "dog"], [["cat"], "dog"]]
)
def test_class_names_that_are_no_list_of_texts_are_told(tmp_path, names):
    with pytest.raises(DataError, match=r"a\.parquet: column 'label'.*names"):
        pool_at(labelled(tmp_path, features(label={"_type": "ClassLabel", "names": names})))


deep: list[object] = []
for _ in range(900):
    deep = [deep]


@pytest.mark.parametrize(
    "metadata",
    ["", "no json", "\udcff", "[" * 50_000, "null", "5", "[]", '{"info": 5}', '{"info": {"features": []}}']
    + [features(label=value, image=value) for value in (5, [], [[]], "x", None, {"_type": 5}, {"_type": ["Image"]})]
    + [features(label={"_type": "Sequence", "feature": 5}), features(label=[{"feature": [{}]}])]
    + [features(label={"_type": "ClassLabel", "names": None}), features(label=deep)],
)
def test_metadata_that_says_nothing_of_a_column_costs_nothing(tmp_path, metadata):
    pool = pool_at(labelled(tmp_path, metadata.encode("utf-8", "surrogateescape")))
    assert pool.labels == ("0", "1")
    assert pool.read(1) == BYTES[1]
