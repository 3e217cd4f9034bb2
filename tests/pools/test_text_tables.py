"""Tables of text and paths: csv, tsv, jsonl and parquet as pools, hostile ones among them."""

import csv
import json
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drawn_pools import draw_pool
from homing.errors import DataError
from homing.memory import peak_rss_mb
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec

FILES = ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png"]
SENDERS = ["181", "7", "181", "07"]


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        pool_at(path, **settings)
    return str(caught.value)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("photos") / "in", {"cat": 2, "dog": 2})


@pytest.fixture
def folder(photos, tmp_path):
    """A folder with the pictures, in which a test may write tables."""
    for name in ("cat", "dog"):
        (tmp_path / name).symlink_to(photos / name)
    return tmp_path


def write_rows(path, rows, separator=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


def rows_of(files=FILES):
    return [["path", "label", "sender"], *([file, file[:3], SENDERS[n % 4]] for n, file in enumerate(files))]


def read_all(pool):
    return [pool.read(row) for row in range(len(pool))]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_csv_with_any_separator(folder, separator, suffix):
    pool = pool_at(write_rows(folder / f"t{suffix}", rows_of(), separator))
    assert (pool.ids, pool.labels, pool.columns["sender"]) == (FILES, ["cat", "cat", "dog", "dog"], SENDERS)
    assert read_all(pool) == [(folder / file).read_bytes() for file in FILES]
    told = "tab" if separator == "\t" else separator
    assert pool.read_as[0].kind == f"{suffix[1:]} separated by {told}"
    assert pool.read_as[0].columns == {"image": "path", "label": "label", "id": "path"}


def test_jsonl_and_parquet_with_paths_read_as_the_csv_does(folder):
    names, *rows = rows_of()
    lines = [dict(zip(names, row, strict=True)) for row in rows]
    (folder / "t.jsonl").write_text("\n".join(json.dumps({**line, "boxes": [[1, 2]]}) for line in lines))
    (folder / "s.jsonl").write_text(
        "\n".join(json.dumps({"image": {"bytes": None, "path": line["path"]}, **line}) for line in lines)
    )
    pq.write_table(pa.Table.from_pylist(lines), folder / "t.parquet")
    for name in ("t.jsonl", "t.parquet"):
        pool = pool_at(folder / name, where="sender == '181'")
        assert (pool.ids, pool.labels) == (FILES[::2], ["cat", "dog"])
        assert pool.read_as[0].selection == "2 of 4 rows where sender == '181'"
        assert read_all(pool) == [(folder / file).read_bytes() for file in FILES[::2]]
    assert "several columns may hold paths of images: 'image', 'path'" not in refusal(
        folder / "t.jsonl", label_column="boxes"
    )
    assert pool_at(folder / "s.jsonl", image_column="image").ids == FILES


def test_a_saved_dataset_of_paths_and_of_classes_by_number(folder, photos):
    import datasets

    labels = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"file": datasets.Value("string"), "label": labels})
    datasets.Dataset.from_dict({"file": FILES, "label": [0, 0, 1, 1]}, features).save_to_disk(folder / "saved")
    pool = pool_at(folder / "saved", root=str(photos))
    assert (pool.ids, pool.labels) == (FILES, ["cat", "cat", "dog", "dog"])


def test_bytes_in_a_column_of_any_name_and_ids_of_chosen_rows_alone(photos, tmp_path):
    data = [(photos / file).read_bytes() for file in FILES]
    table = pa.table({"jpg": [*data[:2], b"no", None], "thumb": data, "label": list("abcd"), "n": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    assert "no image column; set image_column" in refusal(tmp_path / "t.parquet")
    whole = pool_at(tmp_path / "t.parquet", image_column="jpg")
    some = pool_at(tmp_path / "t.parquet", image_column="jpg", where="n in [2, 4]")
    assert some.ids == [whole.ids[1], "row-3"] == [whole.ids[1], whole.ids[3]]
    assert some.read(0) == data[1]
    assert some.known_digest(0) == whole.known_digest(1)
    assert pool_at(tmp_path / "t.parquet", image_column="thumb").labels == list("abcd")
    assert "of the type int64; bytes" in refusal(tmp_path / "t.parquet", image_column="n")
    assert "there is no column 'x'; columns: 'jpg'" in refusal(tmp_path / "t.parquet", image_column="x")


def test_root_says_where_paths_begin_absolute_ones_too(photos, tmp_path):
    files = [str(photos / FILES[0]), *FILES[1:3], f"./dog//../dog/{FILES[3][4:]}"]
    path = write_rows(tmp_path / "t.csv", rows_of(files))
    assert "names no file in" in refusal(write_rows(tmp_path / "u.csv", rows_of()))
    pool = pool_at(path, root=str(photos))
    assert pool.ids[:3] == FILES[:3]
    assert pool.read(0) == (photos / FILES[0]).read_bytes()
    with pytest.raises(OSError, match=r"points outside of"):  # a folder above another one is never followed
        pool.read(3)


@pytest.mark.parametrize("cell", ["../../etc/passwd", "/etc/passwd", "cat/../../secret", "", "cat", "a\0b", "gone.png"])
def test_no_cell_leads_out_of_the_root(folder, cell):
    (folder.parent / "secret").write_bytes(b"x")
    lines = [{"path": file, "label": "a"} for file in (*FILES, cell)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for settings in ({}, {"root": str(folder / "cat" / "..")}):
        pool = pool_at(folder / "t.jsonl", **settings)
        with pytest.raises(OSError, match=r"outside|a folder|No such file|null"):
            pool.read(4)


def test_when_every_path_leads_out_the_remedy_is_told(folder, photos):
    path = write_rows(folder / "t.csv", rows_of([str(photos / file) for file in FILES]))
    assert "points outside its folder" in (told := refusal(path))
    assert "name with root the folder" in told
    assert len(pool_at(path, root=str(photos))) == 4


def test_structs_with_paths_lie_below_the_root_that_is_named(photos, tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": file} for file in FILES], kind)
    pq.write_table(pa.table({"image": images, "label": list("aabb")}), tmp_path / "t.parquet")
    assert "none of its 4 images can be read" in refusal(tmp_path / "t.parquet")
    assert read_all(pool_at(tmp_path / "t.parquet", root=str(photos)))[3] == (photos / FILES[3]).read_bytes()


def test_a_byte_order_mark_quoted_breaks_and_typed_texts(folder):
    rows = [
        ["path", "label", "note"],
        [FILES[0], "01", "a\nb, c"],
        [FILES[2], "2024-01-01", 'say ""'],
        [FILES[1], "true", "NA"],
    ]
    pool = pool_at(write_rows(folder / "t.csv", rows, encoding="utf-8-sig"))
    assert pool.labels == ["01", "2024-01-01", "true"]
    assert pool.columns["note"] == ["a\nb, c", 'say ""', "NA"]


@pytest.mark.parametrize(
    ("text", "settings", "told"),
    [
        ("", {}, "it is empty"),
        ("\n\n", {}, "cannot be read as a table"),
        ("path,label\n", {}, "no images"),
        ("path,label\ncat/000.png,cat,1\n", {}, "Expected 2 columns, got 3"),
        ("path,label\ncat/000.png,cat\ncat/001.png\n", {}, "Row #3"),
        ("path,label,label\ncat/000.png,cat,1\n", {}, "a column occurs twice; columns: 'path', 'label', 'label'"),
        ("path,label\ncat/000.png,\n", {}, "cat/000.png has no label"),
        ("path,label\ncat/000.png,cat\ncat/000.png,cat\n", {}, "id 'cat/000.png' occurs more than once in column path"),
        (
            "path,label,n\ncat/000.png,a,1\ncat/001.png,b,1\n",
            {"id_column": "n"},
            "id '1' occurs more than once in column n",
        ),
        ("path,label\ncat/000.png,cat\n", {"separator": ";"}, "columns: 'path,label'"),
        ("path,file,label\ncat/000.png,b,cat\n", {}, "several columns may hold paths of images: 'path', 'file'"),
        ("x,label\ncat/000.png,cat\n", {}, "no image column; set image_column"),
        ("path,class\ncat/000.png,cat\n", {}, "there is no column 'label'; columns: 'path', 'class'"),
        ("path,label\ncat/000.png,cat\n", {"split": "train"}, "split 'train' chooses nothing of one file"),
        ("path,label\ncat/000.png,cat\n", {"revision": "main"}, "revision means nothing for csv"),
    ],
)
def test_a_csv_that_is_no_pool_is_refused_in_a_sentence(folder, text, settings, told):
    (folder / "t.csv").write_text(text)
    message = refusal(folder / "t.csv", **settings)
    assert told in message
    assert message.startswith(str(folder / "t.csv"))
    assert "\n" not in message


def test_bytes_that_are_no_text(folder):
    (folder / "t.csv").write_bytes(b"path,label\ncat/000.png,\xff\xfe\n")
    assert "cannot be read as a table" in refusal(folder / "t.csv")
    os.mkfifo(folder / "p.csv")
    assert "is a pipe" in refusal(folder / "p.csv")


@pytest.mark.parametrize("key", ["image_column", "where", "root", "separator", "config"])
def test_keys_of_tables_mean_nothing_for_a_folder_of_images(photos, key):
    assert key in refusal(photos, **{key: "," if key == "separator" else "x"})


def test_where_and_image_column_in_a_folder_with_metadata(folder):
    rows = [["photo", "label", "sender"], *rows_of()[1:]]
    write_rows(folder / "metadata.csv", rows, ";")
    pool = pool_at(folder, image_column="photo", where="sender == 7 and label in [dog]")
    assert (pool.ids, pool.read_as[0].selection) == (FILES[3:], "1 of 4 rows where sender == 7 and label in [dog]")


def test_a_csv_too_large_to_be_held_is_read_column_by_column(folder, monkeypatch):
    from homing.pools import text_parts

    monkeypatch.setattr(text_parts, "_WHOLE", 10)
    wide = [[*row, *(f"{name}{n}" for n in range(200))] for name, row in zip("hrstu", rows_of(), strict=True)]
    pool = pool_at(write_rows(folder / "t.csv", wide), where="sender == '181'")
    assert (pool.ids, pool.columns["h199"]) == (FILES[::2], ["r199", "t199"])
    (folder / "t.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="was changed since its rows were listed"):
        pool.columns["h0"][0]


def test_many_rows_open_in_seconds_and_bounded_memory(folder):
    before, start = peak_rss_mb(), time.process_time()
    with (folder / "t.csv").open("w") as file:
        file.write("path,label,id\n")
        file.writelines(f"{FILES[n % 4]},c{n % 9},{n}\n" for n in range(200_000))
    pool = pool_at(folder / "t.csv", id_column="id")
    assert len(pool) == 200_000
    assert time.process_time() - start < 30
    assert peak_rss_mb() - before < 300


def test_a_root_that_is_not_there_a_split_and_no_rows_are_told_as_such(folder):
    table = write_rows(folder / "a.csv", rows_of())
    assert f"root: there is no folder '{folder}/in'" in refusal(table, root=f"{folder}/in")
    assert "split 'train' chooses nothing of one file; choose rows by a column, with where" in refusal(
        table, split="train"
    )
    assert "config means nothing for csv separated by ,; leave it out" in refusal(table, config="x")
    assert "no images; csv separated by ," in refusal(write_rows(folder / "b.csv", rows_of([])))
    (folder / "c.csv").write_text("path,label")
    assert "no images; csv separated by ," in refusal(folder / "c.csv")


def test_bytes_of_arrows_null_type_are_no_bytes(photos, tmp_path):
    rows = [{"image": {"bytes": None, "path": file}, "label": file[:3]} for file in FILES]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    pool = pool_at(tmp_path / "a.parquet", root=str(photos))
    assert read_all(pool) == [(photos / file).read_bytes() for file in FILES]


def test_pictures_as_text_make_no_long_message(folder):
    assert len(refusal(write_rows(folder / "a.csv", rows_of(["x" * 100_000])))) < 600


def test_columns_that_some_lines_of_a_jsonl_have_are_empty_in_the_others(folder, monkeypatch):
    from homing.pools import json_lines

    monkeypatch.setattr(json_lines, "_BATCH", 2)
    more = [{"a": "1", "b": "2"}, {"b": None}, {"c": 3}, {"b": "", "a": "4"}]
    lines = [json.dumps({"path": file, "label": "x", **one}) for file, one in zip(FILES, more, strict=True)]
    (folder / "t.jsonl").write_text("\n\n".join(lines))
    columns = pool_at(folder / "t.jsonl").columns
    assert {name: list(columns[name]) for name in "abc"} == {
        "a": ["1", "", "", "4"],
        "b": ["2", "", "", ""],
        "c": ["", "", "3", ""],
    }
