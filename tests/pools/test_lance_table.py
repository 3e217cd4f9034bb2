import sys

import lance
import numpy as np
import pyarrow as pa
import pytest

from homing.errors import DataError
from homing.pools.reading import files_are_ids, read_pool
from homing.recipe.data import PoolSpec
from packed_pools import png


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        pool_at(path, **settings)
    return str(caught.value)


def rows(start: int, count: int) -> pa.Table:
    numbers = range(start, start + count)
    return pa.table(
        {
            "image": pa.array([png(3, number) for number in numbers], pa.binary()),
            "label": [("cat", "dog")[number % 2] for number in numbers],
            "key": [f"k{number}" for number in numbers],
        }
    )


@pytest.fixture
def table(tmp_path):
    """A Lance table of 150 rows, of which the second version lacks one."""
    path = tmp_path / "pool.lance"
    lance.write_dataset(rows(0, 150), str(path))
    lance.dataset(str(path)).delete("key = 'k3'")
    return path


def test_a_lance_table_is_read_by_position_like_any_table(table):
    pool = pool_at(table, id_column="key", group_column="label")
    assert (len(pool), pool.ids[2:4], pool.labels[:3]) == (149, ("k2", "k4"), ("cat", "dog", "cat"))
    assert [pool.read(row) for row in (148, 3, 0)] == [png(3, number) for number in (149, 4, 0)]
    assert [pool.read(row) for row in range(60, 70)] == [png(3, row + 1) for row in range(60, 70)]  # in blocks
    (read_as,) = pool.read_as
    assert (pool.name, read_as.kind, read_as.version) == ("pool", "Lance table, version 2", "2")
    assert not files_are_ids(PoolSpec(path=str(table), id_column="key"))


def test_without_an_id_column_ids_are_those_of_the_bytes(table):
    from pyarrow import parquet

    parquet.write_table(lance.dataset(str(table)).to_table(), table.with_suffix(".parquet"))
    assert pool_at(table).ids == pool_at(table.with_suffix(".parquet")).ids


def test_a_version_written_meanwhile_changes_nothing_but_the_next_reading(table):
    pool = pool_at(table, id_column="key")
    before, identity = pool.store.states(pool.rows), pool.identity()
    lance.write_dataset(rows(200, 10), str(table), mode="overwrite")
    assert pool.read(100) == png(3, 101)
    assert pool.identity() == identity
    again = pool_at(table, id_column="key")
    assert (len(again), again.read(0)) == (10, png(3, 200))
    assert not (again.store.states(again.rows) == before[:10]).all(1).any()


def test_the_version_is_a_part_of_the_identity(table):
    before = pool_at(table, id_column="key")
    lance.dataset(str(table)).update({"image": "X'00'"}, where="key = 'k0'")
    lance.dataset(str(table)).restore()
    after = pool_at(table, id_column="key")
    assert before.read_as[0].version != after.read_as[0].version
    assert before.identity() != after.identity()
    assert pool_at(table, id_column="key").identity() == after.identity()


def test_a_table_that_is_written_anew_in_its_place_has_other_states(tmp_path):
    import shutil

    states = []
    for start in (0, 10):
        shutil.rmtree(tmp_path / "a.lance", ignore_errors=True)
        lance.write_dataset(rows(start, 3), str(tmp_path / "a.lance"))
        states.append(pool_at(tmp_path / "a.lance", id_column="key").store.states(np.arange(3)))
    assert not (states[0] == states[1]).all(1).any()


def test_what_is_no_lance_table_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.lance").mkdir()
    assert "a.lance: cannot be read as a Lance table" in refusal(tmp_path / "a.lance")
    lance.write_dataset(rows(0, 2), str(tmp_path / "b.lance"))
    assert "a Lance table holds no splits, found split 'train'" in refusal(tmp_path / "b.lance", split="train")
    monkeypatch.setitem(sys.modules, "lance", None)
    assert "pip install 'homing[lance]'" in refusal(tmp_path / "b.lance")


def test_a_lance_table_in_a_bucket_is_read(bucket):
    lance.write_dataset(rows(0, 5), f"{bucket}/pool.lance")
    pool = pool_at(f"{bucket}/pool.lance", id_column="key")
    assert pool.read_as[0].kind == "Lance table, version 1"
    assert [pool.read(row) for row in range(5)] == [png(3, number) for number in range(5)]
