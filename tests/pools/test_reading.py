import csv
import hashlib
import json
import os

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drawn_pools import draw_picture, draw_pool
from homing.errors import DataError
from homing.outputs.safe_names import safe_cell
from homing.pools.class_names import quoted
from homing.pools.columns import Columns
from homing.pools.files import FolderImages
from homing.pools.pool import Pool, join
from homing.pools.reading import read_pool
from homing.pools.texts import Texts
from homing.recipe.data import PoolSpec


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        pool_at(path, **settings)
    assert caught.value.exit_code == 3
    return str(caught.value)


def write_csv(folder, rows) -> None:
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def folder(tmp_path):
    return draw_pool(tmp_path / "pool", {"cat": 3, "dog": 2})


@pytest.fixture
def flat(tmp_path):
    """Four pictures in no class folder."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for number in range(4):
        draw_picture(5, number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def dataset(folder):
    """A saved dataset's content: the pictures' bytes, class labels, an id and a group."""
    files = sorted(folder.rglob("*.png"))
    kinds = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(
        {"image": datasets.Image(), "label": kinds, "key": datasets.Value("string"), "camera": datasets.Value("int64")}
    )
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": None} for path in files],
        "label": [path.parent.name for path in files],
        "key": [f"k{number}" for number in range(len(files))],
        "camera": list(range(len(files))),
    }
    return datasets.Dataset.from_dict(rows, features=features)


def test_an_image_folder_gives_paths_as_ids_and_folders_as_labels(folder):
    pool = pool_at(folder)
    assert pool.ids == ("cat/000.png", "cat/001.png", "cat/002.png", "dog/000.png", "dog/001.png")
    assert pool.labels == ("cat", "cat", "cat", "dog", "dog")
    assert (pool.name, pool.sources[0], pool.classes) == ("pool", "pool", ("cat", "dog"))
    assert [pool.read(row) for row in range(5)] == [(folder / i).read_bytes() for i in pool.ids]


def test_deeper_folders_belong_to_the_class_at_the_top(folder):
    (folder / "cat" / "indoor").mkdir()
    (folder / "cat" / "000.png").rename(folder / "cat" / "indoor" / "a.JPG")
    assert dict(zip(pool_at(folder).ids, pool_at(folder).labels, strict=True))["cat/indoor/a.JPG"] == "cat"


def test_hidden_files_and_files_of_other_kinds_are_no_images(folder):
    for name in ("cat/._000.png", ".cache/x/thumb.png", "cat/notes.txt", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert len(pool_at(folder)) == 5


def test_linked_classes_are_read_and_loops_of_links_end(folder, tmp_path):
    draw_pool(tmp_path / "elsewhere", {"emu": 2})
    (folder / "emu").symlink_to(tmp_path / "elsewhere" / "emu")
    (folder / "cat" / "again").symlink_to(folder)
    (tmp_path / "elsewhere" / "emu" / "loop").symlink_to(folder / "emu")
    assert pool_at(folder).ids[-2:] == ("emu/000.png", "emu/001.png")
    assert len(pool_at(folder)) == 7


def test_a_link_that_leads_nowhere_is_kept_so_that_it_is_told_as_a_bad_image(folder):
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    assert "cat/gone.png" in pool_at(folder).ids


def test_class_folders_1_2_10_keep_their_names(tmp_path):
    pool = pool_at(draw_pool(tmp_path / "pool", {"1": 1, "2": 1, "10": 1}))
    assert pool.classes == ("1", "10", "2")
    assert pool.label_indices(pool.classes).tolist() == [0, 1, 2]
    assert pool.label_indices(("1", "2", "10")).tolist() == [0, 2, 1]


def test_a_folder_with_one_class_keeps_its_label(tmp_path):
    assert pool_at(draw_pool(tmp_path / "pool", {"cat": 2})).labels == ("cat", "cat")


def test_the_name_of_a_folder_keeps_its_dots(tmp_path):
    assert pool_at(draw_pool(tmp_path / "shop.v2", {"cat": 1})).name == "shop.v2"


def test_a_split_is_a_sub_folder(folder):
    draw_pool(folder / "train", {"cat": 1, "emu": 1})
    assert pool_at(folder, split="train").ids == ("cat/000.png", "emu/000.png")
    assert "split 'dev'" in refusal(folder, split="dev")


def test_a_picture_outside_any_class_is_refused(folder):
    draw_picture(0).save(folder / "stray.png")
    assert "stray.png: lies directly in the pool, so it has no class" in refusal(folder)


def test_a_class_without_images_is_refused(folder):
    (folder / "emu").mkdir()
    (folder / "gnu").mkdir()
    assert "no images of the class 'emu', 'gnu'" in refusal(folder)


@pytest.mark.parametrize("made", [True, False])
def test_an_empty_or_missing_folder_is_refused(tmp_path, made):
    path = tmp_path / "pool"
    if made:
        (path / "cat").mkdir(parents=True)
    assert ("no images" if made else "no such file or folder") in refusal(path)


def test_a_file_name_that_is_not_utf8_is_refused(folder):
    os.rename(os.fsencode(folder / "cat" / "000.png"), os.fsencode(folder / "cat") + b"/\xff.png")
    assert "not UTF-8; rename" in refusal(folder)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_gives_labels_and_columns(flat, kind):
    names, labels = [f"{number}.png" for number in range(4)], ["cat", "dog", "cat", "dog"]
    if kind == "csv":
        write_csv(flat, [("file_name", "label", "light"), *zip(names, labels, "0011", strict=True)])
    elif kind == "jsonl":
        rows = zip(names, labels, (0, 0, 1, 1), strict=True)
        lines = [json.dumps({"file_name": name, "label": label, "light": light}) for name, label, light in rows]
        (flat / "metadata.jsonl").write_text("\n".join(lines))
    else:
        pq.write_table(
            pa.table({"file_name": names, "label": labels, "light": [0, 0, 1, 1]}), flat / "metadata.parquet"
        )
    pool = pool_at(flat, group_column="light")
    assert pool.ids == tuple(names)
    assert pool.labels == tuple(labels)
    assert pool.columns["light"] == ("0", "0", "1", "1")
    assert pool.flags("light").tolist() == [False, False, True, True]
    assert pool.read(3) == (flat / "3.png").read_bytes()


def test_cells_of_a_csv_stay_as_written(flat):
    rows = [("0.png", "01", ""), ("1.png", "null", "1.50"), ("2.png", "true", "a,b"), ("3.png", "2024-01-01", '"')]
    write_csv(flat, [("file_name", "label", "note, with comma"), *rows])
    pool = pool_at(flat)
    assert pool.labels == ("01", "null", "true", "2024-01-01")
    assert pool.columns["note, with comma"] == ("", "1.50", "a,b", '"')


def test_a_csv_with_a_byte_order_mark_is_read(flat):
    (flat / "metadata.csv").write_bytes(b"\xef\xbb\xbffile_name,label\r\n0.png,cat\r\n1.png,dog\r\n")
    assert pool_at(flat).labels == ("cat", "dog")


def test_metadata_without_labels_takes_the_folders(folder):
    write_csv(folder, [("file_name", "camera"), ("cat/000.png", "x"), ("dog/001.png", "y")])
    assert pool_at(folder).labels == ("cat", "dog")


def test_a_label_column_and_an_id_column_are_taken_by_name(flat):
    write_csv(flat, [("file_name", "kind", "key"), ("0.png", "cat", "a"), ("1.png", "dog", "b")])
    pool = pool_at(flat, label_column="kind", id_column="key")
    assert (pool.ids, pool.labels) == (("a", "b"), ("cat", "dog"))


@pytest.mark.parametrize(
    ("rows", "settings", "told"),
    [
        ([("name", "label"), ("0.png", "cat")], {}, "there is no column 'file_name'; columns: 'name', 'label'"),
        ([("file_name", "kind"), ("0.png", "cat")], {"label_column": "class"}, "there is no column 'class'"),
        ([("file_name", "label"), ("0.png", "cat")], {"id_column": "key"}, "there is no column 'key'"),
        ([("file_name", "label"), ("0.png", "cat")], {"group_column": "camera"}, "there is no column 'camera'"),
        ([("file_name", "label"), ("0.png", "")], {}, "0.png has no label"),
        ([("file_name", "label"), ("0.png", "cat"), ("1.png", "")], {}, "1.png has no label"),
        ([("file_name", "label", "key"), ("0.png", "cat", "")], {"id_column": "key"}, "row 0 has no id"),
        ([("file_name", "label"), ("0.png", "cat"), ("0.png", "dog")], {}, "id '0.png' occurs more than once"),
        (
            [("file_name", "label", "key"), ("0.png", "cat", "a"), ("1.png", "dog", "a")],
            {"id_column": "key"},
            "id 'a' occurs more than once in column key",
        ),
        ([("file_name", "label"), ("9.png", "cat")], {}, "file_name '9.png' names no file"),
        ([("file_name", "label"), ("", "cat")], {}, "points outside its folder"),
        ([("file_name", "label"), ("../secret.png", "cat")], {}, "points outside its folder"),
        ([("file_name", "label"), ("a/../../secret.png", "cat")], {}, "points outside its folder"),
        ([("file_name", "label"), ("/etc/passwd", "cat")], {}, "points outside its folder"),
        ([("file_name", "label"), ("x" * 5_000, "cat")], {}, "names no file"),
        ([("file_name", "label")], {}, "no images"),
        ([("file_name", "label"), ("0.png", "cat", "more")], {}, "cannot be read as a table"),
        ([("file_name", "label", "label"), ("0.png", "cat", "dog")], {}, "a column occurs twice"),
    ],
)
def test_wrong_metadata_is_refused_with_what_is_wrong(flat, tmp_path, rows, settings, told):
    draw_picture(0).save(tmp_path / "secret.png")
    write_csv(flat, rows)
    assert told in refusal(flat, **settings)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("metadata.csv", b""),
        ("metadata.csv", b"file_name,label\n\xff.png,cat\n"),
        ("metadata.jsonl", b'{"file_name": "0.png", '),
        ("metadata.jsonl", b'{"file_name": "0.png", "label": 1}\n{"file_name": "1.png", "label": {"a": 2}}'),
        ("metadata.parquet", b"PAR1"),
        ("metadata.parquet", b""),
    ],
)
def test_damaged_metadata_is_refused(flat, name, data):
    (flat / name).write_bytes(data)
    assert "cannot be read as a table" in refusal(flat)


def test_parquet_with_images_gives_content_hashes_as_ids(dataset, tmp_path):
    dataset.to_parquet(tmp_path / "shop.parquet")
    pool = pool_at(tmp_path / "shop.parquet")
    assert pool.name == "shop"
    assert pool.labels == ("cat", "cat", "cat", "dog", "dog")
    assert pool.ids == tuple(hashlib.sha256(pool.read(row)).hexdigest()[:32] for row in range(5))
    assert pool.columns["camera"] == ("0", "1", "2", "3", "4")


def test_a_folder_of_parquet_files_is_one_pool_and_a_split_its_prefix(dataset, tmp_path):
    dataset.select([0, 3]).to_parquet(tmp_path / "test-0.parquet")
    dataset.select([1]).to_parquet(tmp_path / "train-0.parquet")
    dataset.select([4]).to_parquet(tmp_path / "train-1.parquet")
    assert pool_at(tmp_path, id_column="key").ids == ("k0", "k3", "k1", "k4")
    assert pool_at(tmp_path, id_column="key", split="train").ids == ("k1", "k4")
    assert "split 'dev'" in refusal(tmp_path, split="dev")


def test_copies_of_a_picture_in_a_table_have_ids_of_their_own(dataset, tmp_path):
    dataset.select([0, 0, 3, 0]).to_parquet(tmp_path / "pool.parquet")
    first, second, other, third = pool_at(tmp_path / "pool.parquet").ids
    assert (second, third) == (f"{first}-2", f"{first}-3")
    assert other != first


def test_a_saved_dataset_is_read_and_its_split_named(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "plain")
    datasets.DatasetDict(train=dataset, test=dataset.select([0, 4])).save_to_disk(tmp_path / "splits")
    assert len(pool_at(tmp_path / "plain")) == 5
    assert pool_at(tmp_path / "splits", split="test", id_column="key").ids == ("k0", "k4")
    assert refusal(tmp_path / "splits").endswith("holds the splits train, test; name one with split")
    assert "name one with split, found 'dev'" in refusal(tmp_path / "splits", split="dev")
    assert "holds no splits" in refusal(tmp_path / "plain", split="train")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"label_column": "kind"}, "there is no column 'kind'; columns: 'label', 'key', 'camera'"),
        ({"id_column": "name"}, "there is no column 'name'"),
        ({"group_column": "place"}, "there is no column 'place'"),
    ],
)
def test_a_table_without_the_named_column_is_refused(dataset, tmp_path, settings, told):
    dataset.to_parquet(tmp_path / "pool.parquet")
    assert told in refusal(tmp_path / "pool.parquet", **settings)


def test_what_is_no_table_of_images_is_refused(dataset, tmp_path):
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read as parquet" in refusal(tmp_path / "damaged.parquet")
    dataset.remove_columns("image").to_parquet(tmp_path / "plain.parquet")
    assert "no image column; " in refusal(tmp_path / "plain.parquet")
    (tmp_path / "photo.png").write_bytes(b"x")
    assert "not a parquet file or a folder of them" in refusal(tmp_path / "photo.png")
    dataset.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").unlink()
    assert "cannot be read as a saved dataset" in refusal(tmp_path / "saved")


def test_rows_without_a_class_in_a_table_are_refused(dataset, tmp_path):
    rows = dataset.to_dict()
    rows["label"][0] = None
    datasets.Dataset.from_dict(rows, features=dataset.features).to_parquet(tmp_path / "pool.parquet")
    assert "k0 has no label" in refusal(tmp_path / "pool.parquet", id_column="key")


def test_joined_sources_keep_their_rows_apart(folder, dataset, tmp_path):
    dataset.to_parquet(tmp_path / "shop.parquet")
    first, second = pool_at(folder), pool_at(tmp_path / "shop.parquet", id_column="key").select([4, 0])
    pool = join([first, second])
    assert pool.ids[4:] == ("pool/dog/001.png", "shop/k4", "shop/k0")
    assert pool.sources == ("pool",) * 5 + ("shop",) * 2
    assert pool.columns["camera"] == ("",) * 5 + ("4", "0")
    assert [pool.read(row) for row in range(7)] == [
        *(first.read(row) for row in range(5)),
        second.read(0),
        second.read(1),
    ]


def test_joined_sources_need_different_names(folder):
    with pytest.raises(DataError, match=r"different names, found pool, pool; set data\.source\.0\.name"):
        join([pool_at(folder), pool_at(folder)])
    assert join([pool_at(folder), pool_at(folder, name="other")]).ids[0] == "pool/cat/000.png"


def test_a_limit_takes_the_same_rows_when_the_pool_grows(tmp_path):
    root = draw_pool(tmp_path / "pool", {"cat": 30, "dog": 30})
    before = pool_at(root, limit=20)
    draw_pool(root, {"emu": 6}, seed=9)
    after = pool_at(root, limit=20)
    assert len(before) == len(after) == 20
    assert before.ids == tuple(sorted(before.ids))
    assert set(after.ids) - set(before.ids) <= {i for i in after.ids if i.startswith("emu")}
    assert len(set(after.ids) & set(before.ids)) >= 14
    assert pool_at(root, limit=1_000).ids == pool_at(root).ids


def test_ids_outlive_edits_of_the_pool(folder):
    before = pool_at(folder)
    draw_picture(77).save(folder / "cat" / "0000.png")
    after = pool_at(folder)
    assert set(before.ids) < set(after.ids)
    assert after.read(after.ids.index("cat/002.png")) == before.read(before.ids.index("cat/002.png"))


def test_the_digest_changes_with_rows_and_labels_only(folder):
    pool = pool_at(folder)
    assert pool.select([4, 3, 2, 1, 0]).digest() == pool.digest()
    assert pool.select([0, 1, 2, 3]).digest() != pool.digest()
    write_csv(folder, [("file_name", "label"), *((i, "cat") for i in pool.ids)])
    assert pool_at(folder).digest() != pool.digest()


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_flag_that_is_neither_0_nor_1_is_told_with_its_sample(flat, wrong):
    values = ["1", "0", "True", "0.0"]
    values[wrong] = "maybe"
    write_csv(flat, [("file_name", "label", "clean"), *((f"{n}.png", "cat", values[n]) for n in range(4))])
    with pytest.raises(DataError, match=rf"clean of {wrong}\.png is 'maybe', allowed: 0 or 1"):
        pool_at(flat).flags("clean")
    with pytest.raises(DataError, match="no column 'matches'"):
        pool_at(flat).flags("matches")


def test_two_metadata_files_are_refused(flat):
    write_csv(flat, [("file_name", "label"), ("0.png", "cat")])
    (flat / "metadata.jsonl").write_text('{"file_name": "0.png", "label": "dog"}')
    assert "holds metadata.csv, metadata.jsonl; one of them has to hold" in refusal(flat)


def test_values_of_a_jsonl_keep_their_text(flat):
    values = ['"2024-01-01"', "1.50", "12345678901234567890123", "1e3", "true", '"01"', "-0.0"]
    for number, value in enumerate(values):
        draw_picture(number).save(flat / f"{number}.png")
        with (flat / "metadata.jsonl").open("a") as file:
            file.write(f'{{"file_name": "{number}.png", "label": {value}}}\n\n')
    assert pool_at(flat).labels == ["2024-01-01", "1.50", "12345678901234567890123", "1e3", "true", "01", "-0.0"]


def test_columns_of_a_jsonl_may_come_and_go(flat):
    lines = [{"file_name": "0.png", "label": "a"}, {"label": "b", "file_name": "1.png", "site": 3}]
    (flat / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert pool_at(flat).columns["site"] == ("", "3")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"file_name": "1.png", "label": NaN}', "1.png has no label"),
        ('{"file_name": "1.png", "label": null}', "1.png has no label"),
        ('{"file_name": "1.png"}', "1.png has no label"),
        ('["1.png", "x"]', "line 2 is no JSON object"),
        ('{"file_name": "1.png", "label": ["x"]}', "a label is a list"),
        ('{"file_name": "1.png", "label": [["x"]]}', "line 2: 'label' holds a list or an object"),
        ('{"file_name": "1.png", "label": {"x": 1}}', "line 2: 'label' holds a list or an object"),
        ('{"file_name": "1.png", "label": "x", "label": "y"}', "line 2: a column occurs twice"),
        ("[" * 100_000, "cannot be read as a table"),
    ],
)
def test_a_line_of_a_jsonl_that_is_no_row_is_told_with_its_number(flat, line, told):
    (flat / "metadata.jsonl").write_text('{"file_name": "0.png", "label": "x"}\n' + line)
    assert told in refusal(flat)


def test_a_cell_of_a_csv_may_hold_a_line_break_and_a_column_a_comma(flat):
    write_csv(flat, [("file_name", "label", "a, b"), ("0.png", "x\ny", "01"), ("1.png", "z", "02")])
    pool = pool_at(flat)
    assert pool.labels == ("x\ny", "z")
    assert pool.columns["a, b"] == ("01", "02")


SIGNS = ["+", "-", "=", "@x", "'+", "''=", "'quoted'", "plain"]


def test_texts_of_a_csv_that_homing_wrote_are_read_as_they_were(flat):
    for number in range(len(SIGNS)):
        draw_picture(number).save(flat / f"{number}.png")
    lines = [(f"{n}.png", f"{n}.png", safe_cell(sign), "1.0", "1") for n, sign in enumerate(SIGNS)]
    write_csv(flat, [("file_name", "sample_id", "label", "rate", "copies"), *lines])
    assert pool_at(flat).labels == SIGNS


def test_an_apostrophe_in_a_csv_of_somebody_else_stays(flat):
    write_csv(flat, [("file_name", "label"), ("0.png", "'+"), ("1.png", "'s")])
    assert pool_at(flat).labels == ("'+", "'s")


def test_rows_that_name_what_an_operating_system_left_behind_are_left_out_and_told(flat):
    (flat / "__MACOSX").mkdir()
    for name in ("__MACOSX/._0.png", "._1.png"):
        (flat / name).write_bytes(b"junk")
    write_csv(
        flat, [("file_name", "label"), ("0.png", "a"), ("__MACOSX/._0.png", "a"), ("._1.png", "b"), ("1.png", "b")]
    )
    pool = pool_at(flat)
    assert (pool.ids, pool.labels) == (("0.png", "1.png"), ("a", "b"))
    assert "2 rows name what an operating system left behind" in pool.read_as[0].warnings[0]


def test_paths_of_metadata_are_written_in_one_way(flat):
    write_csv(flat, [("file_name", "label"), ("./0.png", "a"), (".//1.png", "b")])
    assert pool_at(flat).ids == ("0.png", "1.png")


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "TEST"), ("train",)])
def test_folders_named_for_splits_with_classes_in_them_are_refused(tmp_path, names):
    for name in names:
        draw_pool(tmp_path / "pool" / name, {"cat": 2, "dog": 2})
    message = refusal(tmp_path / "pool")
    assert f"the folders {quoted(sorted(names))} are named for splits, not classes" in message
    assert "('cat', 'dog'); name the one to read with split: " in message
    assert pool_at(tmp_path / "pool", split=names[0]).classes == ("cat", "dog")


def test_classes_that_happen_to_be_called_like_splits_are_classes(tmp_path):
    draw_pool(tmp_path / "pool", {"train": 2, "test": 2})
    assert pool_at(tmp_path / "pool").classes == ("test", "train")
    draw_pool(tmp_path / "pool", {"plane": 2})
    assert pool_at(tmp_path / "pool").classes == ("plane", "test", "train")


def test_metadata_of_which_no_column_is_called_label_is_told(folder):
    write_csv(folder, [("file_name", "kind"), ("cat/000.png", "a"), ("dog/000.png", "b")])
    warning = pool_at(folder).read_as[0].warnings[0]
    assert warning.startswith("metadata.csv has no column 'label', so folders were taken for classes ('cat', 'dog')")
    assert "('kind')" in warning


def test_large_pools_are_selected_joined_and_digested_as_small_ones():
    num = 200_000
    codes = np.arange(num, dtype=np.int32) % 7
    ids = Texts(np.char.add("pool/", np.arange(num).astype(str)).tolist())
    names = [f"c{code}" for code in range(7)]
    columns = Columns.of({"site": Texts.encoded(codes, names)})
    pool = Pool(
        "pool",
        ids,
        Texts.encoded(codes, names),
        FolderImages("x", ids),
        Texts.constant("pool", num),
        columns,
        np.arange(num),
    )
    assert pool.label_indices(names).tolist() == codes.tolist()
    half = pool.select(np.arange(0, num, 2))
    assert (half.ids[1], half.labels[1], half.columns["site"][1]) == ("pool/2", "c2", "c2")
    both = join(
        [half, Pool("other", *(getattr(half, key) for key in ("ids", "labels", "store", "sources", "columns", "rows")))]
    )
    assert (both.ids[0], both.ids[num // 2], both.sources[-1]) == ("pool/pool/0", "other/pool/0", "other")
    assert half.digest() == half.select(np.arange(len(half))[::-1]).digest()
    assert half.identity() != half.select(np.arange(len(half))[::-1]).identity()
