"""Values that sound files of other programs hold: read for what they are, or refused in a sentence."""

import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from homing.errors import DataError
from homing.pools.pool import join
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from packed_pools import png, write_tar


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


@pytest.mark.parametrize("plain", [0, 2])
def test_names_of_a_packed_dot_are_those_below_it(tmp_path, plain):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(4):
            dots = "" if number < plain else "./"
            archive.writestr(f"{dots}{'cat' if number % 2 else 'dog'}/{number}.png", png(7, number))
    pool = pool_at(tmp_path / "a.zip")
    assert sorted(pool.ids) == ["cat/1.png", "cat/3.png", "dog/0.png", "dog/2.png"]
    assert [pool.read(row) for row in range(4)] == [png(7, int(name[4])) for name in pool.ids]


def test_a_name_with_and_without_the_dot_is_a_double(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/0.png", png(7, 0))
        archive.writestr("./cat/0.png", png(7, 1))
    with pytest.raises(DataError, match="twice"):
        pool_at(tmp_path / "a.zip")


@pytest.mark.parametrize("value", ['[{"bbox": [1]}]', "null", "5", '"text"', "[1, 2]"])
def test_a_json_that_is_no_object_beside_the_class_costs_nothing(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOMING_CACHE", str(tmp_path / "cache"))
    members = {"0.png": png(7, 0), "0.cls": b"cat", "0.json": value.encode()}
    pool = pool_at(write_tar(tmp_path / "a.tar", members | {"1.png": png(7, 1), "1.cls": b"dog"}))
    assert pool.labels == ("cat", "dog")


def test_half_a_character_is_told_with_its_member(tmp_path, monkeypatch):
    monkeypatch.setenv("HOMING_CACHE", str(tmp_path / "cache"))
    members = {"0.png": png(7, 0), "0.json": json.dumps({"label": "x\ud83d"}).encode()}
    with pytest.raises(DataError, match=r"0\.json is no JSON object of texts"):
        pool_at(write_tar(tmp_path / "a.tar", members), label_column="label")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(3), pa.binary_view()], ids=str)
def test_labels_that_are_bytes_are_refused(tmp_path, kind):
    images = pa.array([{"bytes": png(7, number), "path": None} for number in range(2)])
    table = pa.table({"image": images, "label": pa.array([b"cat", b"dog"], kind)})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=True)
    with pytest.raises(DataError, match="texts or numbers are wanted"):
        pool_at(tmp_path / "a.parquet", label_column="label")


@pytest.mark.parametrize("deep", [20, 50_000])
def test_a_label_of_many_brackets_is_a_text(tmp_path, deep):
    images = pa.array([{"bytes": png(7, number), "path": None} for number in range(2)])
    pq.write_table(pa.table({"image": images, "label": ["[" * deep, "dog"]}), tmp_path / "a.parquet")
    pool = pool_at(tmp_path / "a.parquet")
    assert pool.labels[1] == "dog"
    assert pool.labels[0] == "[" * deep


def test_a_link_that_leads_to_itself_is_a_bad_image(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "sound.png").write_bytes(png(7, 0))
    pq.write_table(pa.table({"image": ["loop.png", "sound.png"], "label": ["a", "b"]}), tmp_path / "a.parquet")
    pool = pool_at(tmp_path / "a.parquet")
    assert pool.read(1) == png(7, 0)
    with pytest.raises((DataError, OSError)):
        pool.read(0)


def images_of(count, kind=None):
    held = [{"bytes": png(7, number), "path": None} for number in range(count)]
    return pa.array(held, kind)


@pytest.mark.parametrize(
    "inner", [pa.list_(pa.uint8()), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())], ids=str
)
def test_bytes_of_another_type_are_refused_with_their_type(tmp_path, inner):
    held = pa.StructArray.from_arrays(
        [pa.array([list(png(7, 0)) if pa.types.is_list(inner) else png(7, 0)], inner), pa.array([None], pa.string())],
        ["bytes", "path"],
    )
    pq.write_table(pa.table({"image": held, "label": ["cat"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="of the type struct"):
        pool_at(tmp_path / "a.parquet", image_column="image")


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date32(), pa.duration("s")], ids=str)
def test_a_date_beyond_all_calendars_is_told_with_its_column(tmp_path, kind):
    value = pa.array(
        [2**31 - 1 if kind == pa.date32() else 2**62] * 2, pa.int32() if kind == pa.date32() else pa.int64()
    )
    pq.write_table(pa.table({"image": images_of(2), "label": value.cast(kind)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="column 'label' cannot be read"):
        pool_at(tmp_path / "a.parquet", label_column="label")


def test_a_column_that_nobody_asks_for_is_not_read_for_the_split_that_it_cannot_say(tmp_path):
    usage = pa.array([{"cpu": 1}, {"cpu": 2}])
    pq.write_table(pa.table({"image": images_of(2), "label": ["a", "b"], "usage": usage}), tmp_path / "a.parquet")
    assert pool_at(tmp_path / "a.parquet").labels == ("a", "b")


def test_a_text_that_ends_in_another_separator_does_not_swallow_the_rest(tmp_path):
    (tmp_path / "0.png").write_bytes(png(7, 0))
    lines = ['0.png,cat,"a, &quot;vintage&quot;;"', *(f"{number}.png,dog,{'y' * 200}" for number in range(1, 1500))]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,about", *lines, ""]))
    assert pool_at(tmp_path, label_column="label").labels == ("cat",) + ("dog",) * 1499


def folder_pool(root, name, *files):
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(png(7, number))
    return pool_at(root, name=name)


def test_joined_pools_hold_no_id_twice(tmp_path):
    web = folder_pool(tmp_path / "a", "web", "shop/cat/0.png", "shop/dog/0.png")
    assert len(set(join([web, folder_pool(tmp_path / "b", "web/shop", "cat/1.png", "dog/1.png")]).ids)) == 4
    shop = folder_pool(tmp_path / "c", "web/shop", "cat/0.png", "dog/1.png")
    with pytest.raises(DataError, match=r"'web', 'web/shop' come twice to the id 'web/shop/cat/0\.png'.*set data"):
        join([web, shop])


@pytest.mark.parametrize("field", ["label", "id"])
def test_a_json_that_says_a_field_twice_is_told_where_it_is_asked_for(tmp_path, monkeypatch, field):
    monkeypatch.setenv("HOMING_CACHE", str(tmp_path / "cache"))
    twice = f'{{"{field}": "a", "x": {{"{field}": "b"}}, "note": "c", "note": "d", "{field}": "e"}}'.encode()
    shard = write_tar(tmp_path / "a.tar", {"0.png": png(7, 0), "0.cls": b"cat", "0.json": twice})
    assert pool_at(shard).labels == ("cat",)
    with pytest.raises(DataError, match=rf"a\.tar: 0\.json says '{field}' twice; write it again"):
        pool_at(shard, **{f"{field}_column": field})


def test_objects_and_empty_lists_in_a_json_are_what_they_were(tmp_path, monkeypatch):
    monkeypatch.setenv("HOMING_CACHE", str(tmp_path / "cache"))
    values = {"object": {}, "full": {"a": "b"}, "list": [], "labels": ["a", "b"], "number": 1.50, "none": None}
    members = {f"{n}.json": json.dumps({"x": value}).encode() for n, value in enumerate([*values.values(), "text"])}
    pictures = {f"{n}.png": png(7, n) for n in range(7)} | {f"{n}.cls": b"cat" for n in range(7)}
    pool = pool_at(write_tar(tmp_path / "a.tar", members | pictures))
    assert pool.columns["x"] == ["", "", "[]", '["a", "b"]', "1.5", "", "text"]


def test_labels_that_differ_by_nanoseconds_stay_apart(tmp_path):
    times = pa.array([1, 2, 3_000, 1_000_000_000], pa.time64("ns"))
    pq.write_table(pa.table({"image": images_of(4), "label": times}), tmp_path / "a.parquet")
    assert pool_at(tmp_path / "a.parquet").labels == [
        "00:00:00.000000001", "00:00:00.000000002", "00:00:00.000003", "00:00:01"
    ]  # fmt: skip


def test_the_column_of_the_paths_may_be_that_of_the_ids(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(7, number))
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b\n")
    pool, named = pool_at(tmp_path), pool_at(tmp_path, id_column="file_name")
    assert named.ids == pool.ids == ["0.png", "1.png"]
    assert named.read_as == pool.read_as
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,a\n0.png,b\n")
    with pytest.raises(DataError, match=r"id '0\.png' occurs more than once in column file_name"):
        pool_at(tmp_path, id_column="file_name")
