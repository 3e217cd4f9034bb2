"""Tables are read where they lie: the columns that are needed, images by row group, nothing cached on disk."""

import contextlib
import datetime
import hashlib
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drawn_pools import draw_picture, draw_pool
from homing.errors import DataError
from homing.memory import peak_rss_mb
from homing.pools import table_images, table_parts
from homing.pools.reading import read_pool
from homing.pools.tables import open_table
from homing.recipe.data import PoolSpec
from long_runs import often
from processes import LONG_ENOUGH, ended, start

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        pool_at(path, **settings)
    return str(caught.value)


def embedded(data: bytes | None, path: str | None = None) -> dict:
    return {"bytes": data, "path": path}


def write_table(path: Path, rows: dict, features: dict | None = None, **options) -> Path:
    """A parquet file; `features` is what datasets would have written of its columns."""
    kinds = {"image": IMAGE, "mask": IMAGE}
    arrays = [pa.array(values, kinds.get(name)) for name, values in rows.items()]
    table = pa.table(dict(zip(rows, arrays, strict=True)))
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path


@pytest.fixture
def pictures(tmp_path):
    root = draw_pool(tmp_path / ".drawn", {"cat": 3, "dog": 3})
    return [path.read_bytes() for path in sorted(root.rglob("*.png"))]


LABELS = ["cat"] * 3 + ["dog"] * 3


def test_a_file_replaced_under_the_same_name_time_and_size_is_read_as_it_is(pictures, tmp_path):
    path = tmp_path / "p.parquet"
    for labels in (["a", "b"] * 3, ["b", "a"] * 3):
        write_table(path, {"image": [embedded(data) for data in pictures], "label": labels})
        os.utime(path, (1_000, 1_000))
        assert pool_at(path).labels == labels


def test_nothing_is_copied_or_cached(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "in").mkdir()
    path = write_table(tmp_path / "in" / "p.parquet", {"image": [embedded(data) for data in pictures], "label": LABELS})
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    pool = pool_at(path)
    assert [pool.read(row) for row in range(6)] == pictures
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_columns_are_read_when_they_are_asked_for(pictures, tmp_path, monkeypatch):
    rows = {"image": [embedded(data) for data in pictures], "label": LABELS, "camera": list("xyxyxy")}
    path = write_table(tmp_path / "p.parquet", rows | {"raw": [b"raw"] * 6, "vector": [[1.0, 2.0]] * 6})
    asked = []
    real = table_parts.ParquetPart.column
    monkeypatch.setattr(
        table_parts.ParquetPart, "column", lambda self, *names: asked.append(*names) or real(self, *names)
    )
    pool = pool_at(path, group_column="camera").select([1, 0])
    assert set(pool.columns) == {"label", "camera", "raw", "vector"}
    assert asked == ["label", "camera"]
    assert pool.columns["camera"] == ("y", "x")
    with pytest.raises(DataError, match="column 'vector' holds values of the type list<"):
        pool.columns["vector"]


def _list_wide_table(path, out) -> None:
    before = peak_rss_mb()
    pool = pool_at(path, id_column="key")
    assert len(pool) == 60
    assert all(pool.read(row) for row in range(60))
    out.write_text(f"{peak_rss_mb() - before}")


def test_a_wide_column_that_nobody_asks_for_costs_no_memory(pictures, tmp_path):
    rows = {
        "image": [embedded(pictures[k % 6]) for k in range(60)],
        "label": [LABELS[k % 6] for k in range(60)],
        "key": [f"k{k}" for k in range(60)],
        "raw": [np.random.default_rng(k).bytes(1_500_000) for k in range(60)],
    }
    path = write_table(tmp_path / "p.parquet", rows)
    del rows
    process = start(_list_wide_table, path, tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert float((tmp_path / "out").read_text()) < 60, "90 MB lie in the other column"


def with_a_lying_page(path: Path) -> None:
    """Let the first page of the last column say that it takes 2 GB."""
    data, chunk = path.read_bytes(), pq.read_metadata(path).row_group(0).column(1)
    at = chunk.data_page_offset + 3  # thrift: the kind of the page is behind it, its size before compression follows
    while data[at] > 127:
        at += 1
    start = end = at + 2
    while data[end] > 127:
        end += 1
    path.write_bytes(data[:start] + b"\x94\xff\xff\xff\x0f" + data[end + 1 :])


def _read_lying_table(path, out) -> None:
    before = peak_rss_mb()
    with pytest.raises(DataError, match="Page was smaller"):
        pool_at(path)
    out.write_text(f"{peak_rss_mb() - before}")


def test_a_page_that_lies_about_its_size_costs_no_memory(pictures, tmp_path):
    path = tmp_path / "p.parquet"
    table = pa.table({"label": LABELS, "image": pa.array(pictures, pa.binary())})
    pq.write_table(table, path, use_dictionary=False, compression="none")
    with_a_lying_page(path)
    process = start(_read_lying_table, path, tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert process.exitcode == 0, (tmp_path / "err").read_text()
    assert float((tmp_path / "out").read_text()) < 100, "2 GB by its own word"


def test_class_labels_are_read_by_their_names(pictures, tmp_path):
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    rows = {"image": [embedded(data) for data in pictures], "label": [0, 0, 0, 1, 1, 1]}
    assert pool_at(write_table(tmp_path / "p.parquet", rows, features)).labels == LABELS
    rows["label"] = [0, 1, None, -1, 1, 0]
    message = refusal(write_table(tmp_path / "p.parquet", rows, features))
    assert message.endswith("row 2 has no label (2 of 6 rows have none); fill it in or leave the row out")
    rows["label"] = [0, 1, 2, 0, 1, 0]
    assert "column 'label' holds 2, but names only 2 classes" in refusal(
        write_table(tmp_path / "p.parquet", rows, features)
    )


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ([0.0, 1.5, 1e20], pa.float32(), ["0.0", "1.5", "1.0000000200408773e+20"]),
        ([0.0, 1.0, 0.0], pa.float64(), ["0.0", "1.0", "0.0"]),
        ([7, 10, -1], pa.int16(), ["7", "10", "-1"]),
        ([True, False, True], None, ["True", "False", "True"]),
        (["01", "null", "nan"], None, ["01", "null", "nan"]),
        ([datetime.date(2024, 1, 2)] * 3, pa.date32(), ["2024-01-02"] * 3),
        (["x", "y", "x"], pa.dictionary(pa.int8(), pa.string()), ["x", "y", "x"]),
    ],
)
def test_values_of_a_column_are_texts_as_python_writes_them(pictures, tmp_path, values, kind, texts):
    path = tmp_path / "p.parquet"
    table = {"image": pa.array([embedded(data) for data in pictures[:3]], IMAGE), "label": pa.array(values, kind)}
    pq.write_table(pa.table(table), path)
    assert pool_at(path).labels == texts


@pytest.mark.parametrize("wrong", [float("nan"), None])
def test_nan_and_null_are_no_labels(pictures, tmp_path, wrong):
    rows = {"image": [embedded(data) for data in pictures], "label": [0.0, wrong, 1.0, 0.0, wrong, 1.0]}
    path = write_table(tmp_path / "p.parquet", rows)
    assert refusal(path) == f"{path}: row 1 has no label (2 of 6 rows have none); fill it in or leave the row out"


def test_ids_are_digests_and_copies_have_ids_of_their_own(pictures, tmp_path):
    order = [0, 1, 0, 2, 0, 1]
    rows = {"image": [embedded(pictures[k]) for k in order], "label": LABELS}
    pool = pool_at(write_table(tmp_path / "p.parquet", rows, row_group_size=2))
    first = [hashlib.sha256(pictures[k]).hexdigest()[:32] for k in range(3)]
    assert pool.ids == (first[0], first[1], f"{first[0]}-2", first[2], f"{first[0]}-3", f"{first[1]}-2")
    assert [pool.known_digest(row) for row in range(6)] == [hashlib.sha256(pictures[k]).digest() for k in order]


def test_a_null_lost_or_foreign_image_is_a_row_with_an_id_of_its_own(pictures, tmp_path):
    (tmp_path / "in").mkdir()
    draw_picture(1).save(tmp_path / "secret.png")
    draw_picture(2).save(tmp_path / "in" / "good.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    images = [embedded(pictures[0]), None, embedded(None, "lost.png"), embedded(None, str(tmp_path / "secret.png"))]
    images += [embedded(None, "pipe.png"), embedded(None, "good.png")]
    pool = pool_at(write_table(tmp_path / "in" / "p.parquet", {"image": images, "label": LABELS}))
    assert pool.ids[1:5] == ("row-1", "row-2", "row-3", "row-4")
    reasons = ["no image in this row", "names 'lost.png': No such file", "a file outside the pool", "is a pipe"]
    for row, reason in enumerate(reasons, start=1):
        assert pool.known_digest(row) is None
        with pytest.raises(OSError, match=reason):
            pool.read(row)
    assert pool.read(5) == (tmp_path / "in" / "good.png").read_bytes()


def test_a_table_of_which_no_image_can_be_read_is_refused_with_the_remedy(tmp_path):
    rows = {"image": [embedded(None, f"/data/{k}.jpg") for k in range(3)], "label": LABELS[:3]}
    message = refusal(write_table(tmp_path / "p.parquet", rows))
    assert "none of its 3 images can be read; row 0: the table names '/data/0.jpg', a file outside the pool" in message
    assert "write the table anew with the images' bytes in it" in message
    assert "\n" not in message


@pytest.mark.parametrize("block_bytes", [1, 5_000, 100_000_000])
@pytest.mark.parametrize("group", [1, 7, 64])
def test_rows_are_the_same_in_any_order_of_reading(tmp_path, monkeypatch, group, block_bytes):
    monkeypatch.setattr(table_parts, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(table_images, "HELD_BYTES", 3_000)
    data = [np.random.default_rng(k).bytes(200 + 17 * (k % 5)) for k in range(64)]
    for name, part in (("a", data[:40]), ("b", data[40:])):
        rows = {"image": [embedded(image) for image in part], "label": ["x"] * len(part)}
        write_table(tmp_path / f"{name}.parquet", rows, row_group_size=group)
    store = open_table(tmp_path).images()
    order = np.random.default_rng(0).permutation(64)
    for rows in (range(64), reversed(range(64)), order):
        assert all(store.read(int(row)) == data[int(row)] for row in rows)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(store.read, order.tolist())) == [data[row] for row in order]


def test_a_saved_dataset_is_mapped_where_it_lies(pictures, tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [embedded(data) for data in pictures], "label": LABELS}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved", num_shards=2)
    pool = pool_at(tmp_path / "saved")
    assert pool.labels == LABELS
    assert [pool.read(row) for row in (5, 0, 3)] == [pictures[row] for row in (5, 0, 3)]
    assert pool.read_as[0].kind == "saved dataset"


def test_what_the_state_of_a_saved_dataset_names_lies_in_its_folder(pictures, tmp_path):
    rows = {"image": [embedded(data) for data in pictures], "label": LABELS}
    saved = datasets.Dataset.from_dict(
        rows, features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    )
    saved.save_to_disk(tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    state["_data_files"] = [{"filename": "../saved/data-00000-of-00001.arrow"}]
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    assert "is no file in the folder" in refusal(tmp_path / "saved")


def test_a_file_that_is_replaced_while_it_is_in_use_is_not_read_as_the_old_one(pictures, tmp_path):
    path = write_table(tmp_path / "p.parquet", {"image": [embedded(data) for data in pictures], "label": LABELS})
    pool = pool_at(path)
    before = pool.store.states(np.arange(4))
    pool.store.close()
    write_table(path, {"image": [embedded(data) for data in pictures[::-1]], "label": LABELS})
    with pytest.raises(OSError, match="was changed since its rows were listed"):
        pool.read(0)
    assert (pool.store.states(np.arange(4)) != before).any(1).all()


def _cut_off_in_use(root: Path, out: Path) -> None:
    pool = pool_at(root, label_column="label")
    first, arrow = pool.read(0), next(root.glob("*.arrow"))
    os.truncate(arrow, 4_096)
    with pytest.raises(OSError, match=r"data-00000-of-00001\.arrow was changed since its rows were listed"):
        pool.read(5)
    pool.store.close()
    with pytest.raises(OSError, match="was changed since its rows were listed"):
        pool.read(0)
    with pytest.raises(DataError, match="cannot be read as a saved dataset: Expected to be able to read"):
        pool_at(root)
    with pytest.raises(DataError, match="column 'camera' cannot be read: "):
        pool.columns["camera"]
    out.write_text(f"{len(first)} {list(pool.labels)} {len(set(pool.ids))}")


def test_a_saved_dataset_that_is_cut_off_while_it_is_mapped_is_an_error_and_no_end(tmp_path):
    """Memory that stands for what is there no more ends a process (SIGBUS) that looks at it."""
    images = [{"bytes": np.random.default_rng(k).bytes(20_000), "path": None} for k in range(6)]
    rows = {"image": images, "label": LABELS, "camera": [f"camera {k}" for k in range(6)]}
    features = datasets.Features(
        {"image": datasets.Image(), **dict.fromkeys(("label", "camera"), datasets.Value("string"))}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    process = start(_cut_off_in_use, tmp_path / "saved", tmp_path / "out", stderr=tmp_path / "err")
    assert ended(process, LONG_ENOUGH), "waits for ever"
    assert process.exitcode == 0, (tmp_path / "err").read_text()
    assert (tmp_path / "out").read_text() == f"20000 {LABELS} 6"


def test_the_state_of_a_row_follows_the_file_that_the_table_names(pictures, tmp_path):
    draw_picture(2).save(tmp_path / "a.png")
    images = [embedded(pictures[0], "a.png"), embedded(None, "a.png"), None]
    store = open_table(write_table(tmp_path / "p.parquet", {"image": images, "label": LABELS[:3]})).images()
    rows = np.arange(3)
    before = store.states(rows)
    assert len(np.unique(before, axis=0)) == 3
    os.utime(tmp_path / "a.png", (1, 1))
    assert (store.states(rows) != before).any(1).tolist() == [True, True, False]
    assert (store.states(rows[::-1]) == store.states(rows)[::-1]).all()


def test_a_split_is_the_whole_first_word_of_a_files_name(pictures, tmp_path):
    for name in ("train-0", "training_extra-0", "test-0"):
        write_table(tmp_path / f"{name}.parquet", {"image": [embedded(pictures[0])], "label": [name]})
    assert pool_at(tmp_path, split="train").labels == ("train-0",)
    (warning,) = pool_at(tmp_path).read_as[0].warnings
    assert warning.startswith("the files are named for the splits test, train, training; all were read")


def test_junk_and_folders_beside_parquet_files_are_not_read_and_the_latter_are_told(pictures, tmp_path):
    write_table(tmp_path / "p.parquet", {"image": [embedded(data) for data in pictures], "label": LABELS})
    (tmp_path / "._p.parquet").write_bytes(b"junk")
    draw_pool(tmp_path, {"emu": 2})
    pool = pool_at(tmp_path)
    assert len(pool) == 6
    assert "not the folders beside them (emu)" in pool.read_as[0].warnings[0]


def test_of_several_image_columns_one_has_to_be_called_image(pictures, tmp_path):
    features = {name: {"_type": "Image"} for name in ("photo", "mask")}
    rows = {"photo": pictures, "mask": [embedded(None)] * 6, "label": LABELS}
    path = write_table(tmp_path / "p.parquet", rows, features)
    assert "several image columns: 'photo', 'mask'; set image_column to the one to read" in refusal(path)
    features["image"] = {"_type": "Image"}
    rows = {"mask": [embedded(None)] * 6, "image": [embedded(data) for data in pictures], "label": LABELS}
    assert pool_at(write_table(path, rows, features)).read(0) == pictures[0]


def test_bytes_in_a_column_called_image_are_images(pictures, tmp_path):
    pq.write_table(pa.table({"image": pictures, "label": LABELS}), tmp_path / "p.parquet")
    pool = pool_at(tmp_path / "p.parquet")
    assert [pool.read(row) for row in range(6)] == pictures


def test_files_with_other_columns_are_refused(pictures, tmp_path):
    write_table(tmp_path / "a.parquet", {"image": [embedded(pictures[0])], "label": ["x"]})
    write_table(tmp_path / "b.parquet", {"image": [embedded(pictures[0])], "kind": ["x"]})
    assert "b.parquet has other columns (image, kind) or classes than a.parquet (image, label)" in refusal(tmp_path)


def test_what_is_no_file_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "p.parquet")
    assert "p.parquet: cannot be read as parquet: is a pipe" in refusal(tmp_path)


@pytest.fixture
def saved(pictures, tmp_path):
    """The same rows as a parquet file and as a saved dataset; the bytes of each file that may be damaged."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [embedded(data) for data in pictures], "label": LABELS}
    dataset = datasets.Dataset.from_dict(rows | {"key": list("uvwxyz")})
    dataset = dataset.cast(datasets.Features({**features, "key": datasets.Value("string")}))
    dataset.save_to_disk(tmp_path / "saved")
    dataset.to_parquet(tmp_path / "p.parquet")
    folder = tmp_path / "saved"
    files = [
        tmp_path / "p.parquet",
        *sorted(folder.glob("*.arrow")),
        folder / "state.json",
        folder / "dataset_info.json",
    ]
    return [(file, folder if file.parent == folder else file, file.read_bytes()) for file in files]


def _damaged(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    if generator.random() < 0.2:
        return bytes(changed[: generator.randrange(len(data))])
    for _ in range(generator.choice([1, 1, 2, 8])):
        changed[generator.randrange(len(data))] = generator.choice([0, 255, generator.randrange(256)])
    return bytes(changed)


def test_a_damaged_table_is_read_or_refused_in_one_line(saved):
    generator = random.Random(5)
    for _ in range(often(150, 20_000)):
        file, pool, data = generator.choice(saved)
        file.write_bytes(_damaged(data, generator))
        told = ""
        try:
            read = pool_at(pool, id_column=generator.choice([None, "key"]))
            read.store.states(read.rows)
            for row in range(len(read)):
                with contextlib.suppress(OSError):
                    read.read(row)
            for name in read.columns:
                with contextlib.suppress(DataError):
                    read.columns[name]
        except DataError as error:
            told = str(error)
        assert "\n" not in told
        file.write_bytes(data)


def test_states_of_rows_differ_in_their_first_half_by_which_they_are_found(tmp_path):
    rows = 50_000
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"label": ["a", "b"] * (rows // 2), "image": [b"no picture"] * rows}), path)
    other = tmp_path / "more.parquet"
    other.write_bytes(path.read_bytes())
    halves = []
    for table in (path, other):
        states = open_table(table).images().states(np.arange(rows))
        halves.append(states[:, :8].copy().view(np.uint64)[:, 0])
    assert len(np.unique(np.concatenate(halves))) == 2 * rows
