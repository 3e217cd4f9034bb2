"""Folders and tables that can be read in two ways: what was read is said, or nothing is."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drawn_pools import draw_picture, draw_pool
from homing.errors import DataError
from homing.pools.ambiguities import ambiguities
from homing.pools.images import Images
from homing.pools.layouts import is_split_name
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec

TWO = {"cat": 2, "dog": 2}


def doubts(path, **settings) -> str:
    return "\n".join(ambiguities({"source": read_pool(PoolSpec(path=str(path), **settings))}))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        read_pool(PoolSpec(path=str(path), **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bad_in(path) -> dict[str, str]:
    pool = read_pool(PoolSpec(path=str(path)))
    images = Images(pool.store, pool.rows, pool.ids, canvas=16)
    return {item.name: item.reason for item in images.find_bad()}


def test_names_of_splits():
    splits = ("train", "Validation", "test_set", "training_set", "train2017", "val-images", "TEST", "dev", " test ")
    assert all(map(is_split_name, splits))
    others = ("trains", "tester", "cat", "", "value", "validated", "test cat", "train" + "1" * 200 + "x")
    assert not any(map(is_split_name, others))


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("train2017", "val2017")])
def test_splits_by_any_name_are_refused(tmp_path, names):
    for name in names:
        draw_pool(tmp_path / name, TWO)
    assert "are named for splits, not classes" in refusal(tmp_path)


def test_splits_of_which_one_holds_no_classes_are_refused(tmp_path):
    for name in ("train", "val"):
        draw_pool(tmp_path / name, TWO)
    draw_pool(tmp_path, {"test": 2})  # unlabelled
    told = refusal(tmp_path)
    assert "the folders 'test', 'train', 'val' are named for splits, not classes" in told
    assert "('cat', 'dog')" in told


def test_a_split_with_the_classes_beside_it_once_more_is_refused(tmp_path):
    draw_pool(draw_pool(tmp_path, TWO) / "val", TWO)
    told = refusal(tmp_path)
    assert "the folder 'val' is named for a split and holds classes that lie beside it ('cat', 'dog')" in told


def test_a_class_that_is_named_for_a_split_is_told(tmp_path):
    draw_pool(tmp_path, TWO | {"test": 1})
    assert "'test' is named for a split, and was read as a class like the others" in doubts(tmp_path)
    draw_pool(tmp_path / "vehicles", {"train": 1, "plane": 1})
    assert doubts(tmp_path / "vehicles") == ""


def test_splits_inside_of_classes_are_told(tmp_path):
    for name in TWO:
        draw_pool(tmp_path / name, {"train": 1, "test": 1})
    assert "folders inside of classes are named for splits ('test', 'train') and were read as one" in doubts(tmp_path)


def test_domains_with_classes_in_them_are_told(tmp_path):
    draw_pool(tmp_path / "photo", TWO)
    draw_pool(tmp_path / "sketch", TWO | {"emu": 1})
    told = doubts(tmp_path)
    assert "the classes are the folders 'photo', 'sketch', and those hold the same folders ('cat', 'dog')" in told


def test_classes_that_lie_one_folder_too_deep_are_told(tmp_path):
    draw_pool(tmp_path / "images", TWO)
    assert "the only class is the folder 'images', which holds the folders 'cat', 'dog'" in doubts(tmp_path)


def test_folders_of_cameras_inside_of_classes_are_no_doubt_where_they_differ(tmp_path):
    draw_pool(tmp_path / "cat", {"monday": 1})
    draw_pool(tmp_path / "dog", {"tuesday": 1, "wednesday": 1})
    assert doubts(tmp_path) == ""


@pytest.mark.parametrize("name", ["labels.csv", "Metadata.csv", "train.json", "annotations/a.xlsx"])
def test_a_table_that_is_not_read_is_told(tmp_path, name):
    path = draw_pool(tmp_path, TWO) / "cat" / name if "/" in name else draw_pool(tmp_path, TWO) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("file,label\n")
    assert f"tables were not read: 1 {path.suffix} (first: " in doubts(tmp_path)


def test_parquet_files_in_a_folder_below_are_named(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"label": ["a"]}), tmp_path / "data" / "train-00000-of-00001.parquet")
    assert "(first: 'data/train-00000-of-00001.parquet'); give the path of a parquet file" in refusal(tmp_path)


def write_metadata(root, *rows, header="file_name,label"):
    root.mkdir(exist_ok=True)
    for number in range(3):
        draw_picture(1, number).save(root / f"{number}.png")
    (root / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


ROWS = ("0.png,cat", "1.png,dog", "2.png,cat")


@pytest.mark.parametrize(("name", "told"), [("9.png", "No such file"), ("../x.png", "outside"), ("/x.png", "outside")])
def test_a_lost_or_foreign_file_of_metadata_is_a_bad_image(tmp_path, name, told):
    draw_picture(5).save(tmp_path / "x.png")
    found = bad_in(write_metadata(tmp_path / "pool", *ROWS, f"{name},dog"))
    assert list(found) == [name]
    assert told in found[name]


def test_a_row_that_names_no_file_has_its_number(tmp_path):
    (told,) = bad_in(write_metadata(tmp_path, *ROWS, ",dog")).items()
    assert told[0] == "row-3"


def test_absolute_paths_inside_of_the_folder_are_read(tmp_path):
    assert bad_in(write_metadata(tmp_path, *(f"{tmp_path}/{row}" for row in ROWS))) == {}


def test_a_name_in_another_unicode_form_is_the_same_file(tmp_path):
    root = write_metadata(tmp_path, *ROWS, f"{unicodedata.normalize('NFC', 'café.png')},cat")
    draw_picture(4).save(root / unicodedata.normalize("NFD", "café.png"))
    assert bad_in(root) == {}


def test_images_that_no_row_names_are_told(tmp_path):
    assert "1 images are named by no row of metadata.csv (first: '2.png')" in doubts(
        write_metadata(tmp_path, *ROWS[:2])
    )


@pytest.mark.parametrize(
    ("header", "rows", "told"),
    [
        ("file_name, label", ["0.png, cat"], "there is no column 'label'; columns: ' label'; set label_column"),
        ("image,label", ["0.png,cat"], "columns: 'image', 'label'; set image_column to the one that holds the paths"),
        ("file_name,label", [r"sub\0.png,cat"], "write / between folders"),
        ("file_name,label", ["https://a.b/0.png,cat"], "'https://a.b/0.png' names no file"),
        ("file_name,label", ["0.png,cat", "1.png, "], "1.png has no label"),
    ],
)
def test_metadata_that_is_meant_otherwise_is_refused_with_the_remedy(tmp_path, header, rows, told):
    assert told in refusal(write_metadata(tmp_path, *rows, header=header))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_what_separates_the_cells_of_metadata_is_found_out(tmp_path, separator):
    rows = [row.replace(",", separator) for row in ROWS]
    root = write_metadata(tmp_path, *rows, header=f"file_name{separator}label")
    assert read_pool(PoolSpec(path=str(root))).labels == [row.split(",")[1] for row in ROWS]


def test_metadata_in_another_encoding_is_refused_with_the_remedy(tmp_path):
    write_metadata(tmp_path, *ROWS)
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,café\n", encoding="latin-1")
    assert "save it as UTF-8" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["NaN", "null", "n/a", "-1"])
def test_a_class_that_may_be_no_label_is_told(tmp_path, name):
    root = write_metadata(tmp_path, *ROWS[:2], f"2.png,{name}")
    assert f"source: the class {name!r} (1 images) may stand for labels that are missing" in doubts(root)


@pytest.mark.parametrize(("one", "other"), [("0", "0.0"), ("1", "01"), ("2", " 2")])
def test_numbers_that_are_written_in_two_ways_are_told(tmp_path, one, other):
    assert "how a number is written, and count as several" in doubts(
        write_metadata(tmp_path, f"0.png,{one}", f"1.png,{other}", "2.png,9")
    )


def test_a_column_of_splits_is_told(tmp_path):
    root = write_metadata(tmp_path, *(f"{row},{'train' if number else 'test'}" for number, row in enumerate(ROWS)),
                          header="file_name,label,split")  # fmt: skip
    assert "rows of all splits ('test', 'train' in the column 'split') were read as one pool" in doubts(root)


def test_a_class_name_with_a_line_break_stays_in_one_line(tmp_path):
    pool = read_pool(PoolSpec(path=str(write_metadata(tmp_path, '0.png,"a\nb"', *ROWS[1:]))))
    with pytest.raises(DataError) as caught:
        pool.label_indices(("cat\n", "x" * 5_000))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_files_of_a_table_hold_one_kind_of_label(tmp_path):
    images = pa.array([b"x", b"y"])
    pq.write_table(pa.table({"image": images, "label": ["cat", "dog"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / "b.parquet")
    told = refusal(tmp_path)
    assert "the column 'label' is of another kind in a.parquet (string) than in b.parquet (int64)" in told
    labels = pa.array(["cat", "emu"]).dictionary_encode()
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "b.parquet")
    assert read_pool(PoolSpec(path=str(tmp_path))).classes == ("cat", "dog", "emu")
