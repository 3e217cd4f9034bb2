"""Pools whose images are of several classes: every form that labels come in, and what is refused."""

import json

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from drawn_pools import encoded
from homing.errors import DataError
from homing.pools.label_sets import class_counts, match_sets, sets_in
from homing.pools.reading import read_pool
from homing.pools.split_off import rows_of_test
from homing.recipe.data import PoolSpec
from packed_pools import write_tar

SETS = [["dog", "cat"], [], ["cat"]]
TEXTS = ('["cat", "dog"]', "[]", '["cat"]')


def picture(number):
    return encoded(Image.new("RGB", (8, 8), (number, 0, 0)))


PICTURES = [picture(number) for number in range(3)]


def folder_with(folder, name, text):
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(data)
    (folder / name).write_text(text)
    return folder


def read(path, **more):
    return read_pool(PoolSpec(path=str(path), **more), sets=True)


def table_with(path, labels):
    parquet.write_table(pa.table({"image": pa.array(PICTURES), "label": labels}), path)
    return path


def test_a_list_column_of_parquet(tmp_path):
    assert read(table_with(tmp_path / "p.parquet", pa.array(SETS))).labels == TEXTS


def test_a_list_of_a_dictionary_and_numbers(tmp_path):
    kind = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    assert read(table_with(tmp_path / "p.parquet", pa.array(SETS, kind))).labels == TEXTS
    numbers = pa.array([[3, 10], [], [3]])
    assert read(table_with(tmp_path / "n.parquet", numbers)).labels == ('["10", "3"]', "[]", '["3"]')


@pytest.mark.parametrize("kind", [datasets.List, datasets.Sequence])
def test_a_saved_dataset_of_lists_of_class_labels(tmp_path, kind):
    features = datasets.Features({"image": datasets.Image(), "label": kind(datasets.ClassLabel(names=["cat", "dog"]))})
    rows = {"image": [{"bytes": data, "path": None} for data in PICTURES], "label": [[1, 0], [], [0]]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved").labels == TEXTS


@pytest.mark.parametrize("cells", [["dog|cat", "[]", "cat"], ['"[""dog"", ""cat""]"', "[]", " cat "]])
def test_texts_of_a_csv(tmp_path, cells):
    lines = ["file_name,label", *(f"{number}.png,{cell}" for number, cell in enumerate(cells))]
    assert read(folder_with(tmp_path / "p", "metadata.csv", "\n".join(lines))).labels == TEXTS


def test_lists_of_a_jsonl(tmp_path):
    lines = [json.dumps({"file_name": f"{number}.png", "label": labels}) for number, labels in enumerate(SETS)]
    assert read(folder_with(tmp_path / "p", "metadata.jsonl", "\n".join(lines))).labels == TEXTS


def test_a_table_of_paths(tmp_path):
    folder = folder_with(tmp_path / "p", "labels.tsv", "image\tlabel\n0.png\tdog|cat\n1.png\t[]\n2.png\tcat\n")
    assert read(folder / "labels.tsv").labels == TEXTS
    lines = [json.dumps({"image": f"{number}.png", "label": labels}) for number, labels in enumerate(SETS)]
    (folder / "labels.jsonl").write_text("\n".join(lines))
    assert read(folder / "labels.jsonl").labels == TEXTS


def test_the_json_members_of_tar_shards(tmp_path):
    members = {}
    for number, (data, labels) in enumerate(zip(PICTURES, SETS, strict=True)):
        about = {"label": labels, "cat": int("cat" in labels), "dog": "dog" in labels}
        members |= {f"{number}.png": data, f"{number}.json": json.dumps(about).encode()}
    shard = write_tar(tmp_path / "pool.tar", members)
    assert read(shard).labels == TEXTS
    assert read(shard, label_columns=("cat", "dog")).labels == TEXTS


def test_names_of_classes_are_changed_within_sets(tmp_path):
    path = table_with(tmp_path / "p.parquet", pa.array(SETS))
    assert read(path, rename={"dog": "cat"}).labels == ('["cat"]', "[]", '["cat"]')
    with pytest.raises(DataError, match=r"no class 'dogs'; classes are 'cat', 'dog'; did you mean 'dog'"):
        read(path, rename={"dogs": "cat"})


def test_a_test_is_split_off_by_the_rarest_label(tmp_path):
    labels = [["cat", "dog"] if number % 5 == 0 else ["cat"] for number in range(20)]
    pictures = [picture(10 * number) for number in range(20)]
    parquet.write_table(pa.table({"image": pa.array(pictures), "label": labels}), tmp_path / "p.parquet")
    pool = read(tmp_path / "p.parquet")
    tested = rows_of_test(pool, (0.0, 0.5), ())
    assert sorted(class_counts(pool.select(np.flatnonzero(tested))).values()) == [2, 10]


def test_a_column_for_each_class(tmp_path):
    text = "file_name,cat,dog\n0.png,1,true\n1.png,0,0\n2.png,1,False\n"
    pool = read(folder_with(tmp_path / "p", "metadata.csv", text), label_columns=("dog", "cat"))
    assert pool.labels == TEXTS
    flags = {"image": PICTURES, "cat": [True, False, True], "dog": [1, 0, 0]}
    parquet.write_table(pa.table(flags), tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet", label_columns=("dog", "cat")).labels == TEXTS


def test_an_image_folder_has_one_label_an_image(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(PICTURES[number])
    assert read(tmp_path).labels == ('["cat"]', '["dog"]')


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([["cat"], None, []], "has no label"),
        ([["cat"], ["dog", None], []], "has no label"),
    ],
)
def test_null_is_no_label_and_an_empty_list_is_a_set(tmp_path, labels, told):
    with pytest.raises(DataError, match=told):
        read(table_with(tmp_path / "p.parquet", pa.array(labels)))


@pytest.mark.parametrize("cell", ["[cat", "cat||dog", '"[""cat"", [1]]"'])
def test_a_cell_that_is_no_list_is_told_with_its_image(tmp_path, cell):
    folder = folder_with(tmp_path / "p", "metadata.csv", f"file_name,label\n0.png,cat\n1.png,{cell}\n2.png,dog\n")
    with pytest.raises(DataError, match=r"p: the labels of 1\.png are .* wanted are a JSON list"):
        read(folder)


def test_columns_of_classes_hold_0_and_1_and_are_there(tmp_path):
    folder = folder_with(tmp_path / "p", "metadata.csv", "file_name,cat\n0.png,1\n1.png,\n2.png,0\n")
    with pytest.raises(DataError, match=r"cat of 1\.png is '', allowed: 0 or 1"):
        read(folder, label_columns=("cat",))
    with pytest.raises(DataError, match="there is no column 'dog'"):
        read(folder, label_columns=("dog", "cat"))


def test_lists_are_refused_where_an_image_has_one_class(tmp_path):
    path = table_with(tmp_path / "p.parquet", pa.array(SETS))
    with pytest.raises(DataError, match=r"a label is a list .* set task: multi_label"):
        read_pool(PoolSpec(path=str(path)))


def test_classes_are_the_sources_and_others_are_told_with_what_they_nearly_are(tmp_path):
    source = read(table_with(tmp_path / "source.parquet", pa.array(SETS)))
    target = read(table_with(tmp_path / "target.parquet", pa.array([["dog"], [], ["cat", "dog"]])))
    classes, labels, sets = match_sets({"source": source, "target": target})
    assert classes == ("cat", "dog")
    assert sets.holds[labels].tolist() == [[1, 1], [0, 0], [1, 0], [0, 1], [0, 0], [1, 1]]
    assert class_counts(source) == {"cat": 2, "dog": 1}
    np.testing.assert_array_equal(sets_in(target, classes), sets.holds[labels[3:]])
    odd = read(table_with(tmp_path / "odd.parquet", pa.array([["Cat"], [], ["cat"]])))
    with pytest.raises(DataError, match=r"target: class 'Cat' is not among the source's classes .* not quite 'cat'"):
        match_sets({"source": source, "target": odd})
