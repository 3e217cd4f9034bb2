import json
import logging
import os
import socket
import sys

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from homing.errors import DataError, RecipeError
from homing.pools.object_store import RemoteFile, file_system
from homing.pools.reading import files_are_ids, read_pool
from homing.recipe.data import PoolSpec
from homing.recipe.reading import parse_recipe
from packed_pools import png, samples, told_by, write_tar, zip_folder
from s3_server import upload


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOMING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        pool_at(path, **settings)
    return str(caught.value)


@pytest.fixture
def shards(tmp_path, bucket):
    """Two shards of 20 samples each, in a folder of a bucket."""
    for number in range(2):
        write_tar(tmp_path / "shards" / f"{number:04d}.tar", samples(20 * number, 20))
    return upload(tmp_path / "shards", f"{bucket}/shards")


@pytest.fixture
def table(tmp_path):
    """A parquet file of twelve pictures, in row groups of four."""
    rows = [{"image": png(3, n), "label": ("cat", "dog")[n % 2], "key": f"k{n}"} for n in range(12)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet", row_group_size=4)
    return tmp_path / "pool.parquet"


def requests_of(caplog, action) -> list[str]:
    """What an action asks of the server: the range of each read."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "werkzeug"):
        action()
    return [record.getMessage() for record in caplog.records if "GET" in record.getMessage()]


# ---- shards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["", "/{0000..0001}.tar"])
def test_shards_in_a_bucket_are_read_as_those_of_a_folder(shards, tmp_path, pattern):
    pool, local = pool_at(f"{shards}{pattern}"), pool_at(f"{tmp_path}/shards{pattern}")
    assert (pool.name, pool.ids, pool.labels) == ("shards", local.ids, local.labels)
    assert pool.read_as[0].kind == "tar shards (2)"
    assert [pool.read(row) for row in (39, 3, 20)] == [png(7, number) for number in (39, 3, 20)]
    assert not files_are_ids(PoolSpec(path=shards))


def test_rows_in_order_are_read_ahead_and_others_alone(shards, caplog):
    pool = pool_at(shards)
    in_order = requests_of(caplog, lambda: [pool.read(row) for row in range(20)])
    assert len(in_order) <= 4
    assert len(requests_of(caplog, lambda: [pool.read(row) for row in (5, 31, 2, 25)])) == 4
    # the index is kept: listed again, no shard is read
    assert not [line for line in requests_of(caplog, lambda: pool_at(shards)) if ".tar" in line]


def test_an_object_that_is_replaced_is_noticed_and_its_index_not_believed(shards, tmp_path):
    pool = pool_at(shards)
    pool.read(20)
    before = pool.store.states(pool.rows)
    upload(write_tar(tmp_path / "new.tar", samples(60, 20)), f"{shards}/0001.tar")
    with pytest.raises(OSError, match=r"0001\.tar: was changed since its rows were listed"):
        pool.read(35)
    again = pool_at(shards)
    assert again.ids[20] == "000060"
    same = (again.store.states(again.rows) == before).all(1)
    assert same.tolist() == [True] * 20 + [False] * 20


def test_a_zip_in_a_bucket_is_read(bucket, tmp_path):
    (tmp_path / "pool" / "cat").mkdir(parents=True)
    (tmp_path / "pool" / "cat" / "a.png").write_bytes(png(1))
    pool = pool_at(upload(zip_folder(tmp_path / "pool", tmp_path / "a.zip"), f"{bucket}/a.zip"))
    assert (pool.ids, pool.labels, pool.read(0)) == (("cat/a.png",), ("cat",), png(1))


# ---- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["pool.parquet", "pool/train-0.parquet"])
def test_a_table_in_a_bucket_is_read_as_one_of_this_machine(bucket, table, place):
    url = upload(table, f"{bucket}/{place}")
    path = url if place == "pool.parquet" else url.rpartition("/")[0]
    pool, local = pool_at(path), pool_at(table)
    assert (pool.name, pool.ids, pool.labels) == ("pool", local.ids, local.labels)
    assert pool.read_as[0].kind == "parquet in object storage (1)"
    assert [pool.read(row) for row in (11, 0, 5)] == [png(3, number) for number in (11, 0, 5)]
    assert pool_at(path, id_column="key").ids[3] == "k3"
    states = pool.store.states(np.arange(12))
    assert len({state.tobytes() for state in states}) == 12
    assert (states == pool_at(path).store.states(np.arange(12))).all()


def test_a_table_that_is_replaced_is_noticed(bucket, table):
    url = upload(table, f"{bucket}/pool.parquet")
    pool = pool_at(url, id_column="key")
    before = pool.store.states(pool.rows)
    pool.read(0)
    parquet.write_table(parquet.read_table(table).slice(0, 8), table, row_group_size=4)
    upload(table, url)
    pool.store.close()  # what it holds of the old table
    with pytest.raises(OSError, match="was changed since its rows were listed; start again"):
        pool.read(9)
    again = pool_at(url, id_column="key")
    assert not (again.store.states(again.rows) == before[:8]).all(1).any()


def test_a_table_in_a_bucket_names_no_files(bucket, tmp_path):
    rows = [{"image": {"bytes": None, "path": "/etc/passwd"}, "label": "a", "key": "k"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    pool = pool_at(upload(tmp_path / "t.parquet", f"{bucket}/t.parquet"), id_column="key")
    with pytest.raises(OSError, match="names the file '/etc/passwd'; here only bytes in the table are read"):
        pool.read(0)


def test_what_lies_in_a_bucket_and_is_no_pool_is_refused(bucket, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    upload(tmp_path / "a.png", f"{bucket}/pool/cat/a.png")
    assert "holds no .parquet and no .tar file; from object storage these are read" in refusal(f"{bucket}/pool")
    assert refusal(f"{bucket}/nothing").startswith(f"{bucket}/nothing: there is no such object, bucket or folder")
    assert "there is no such object" in refusal(f"{bucket}/{{0..1}}.tar")


# ---- tables that name images ---------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """A folder of six pictures in two sub-folders and one beside them, and tables of their paths."""
    files = [f"{name}/{n}.png" for name in ("cat", "dog") for n in range(3)] + ["é #1.png"]
    for n, file in enumerate(files):
        (tmp_path / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / file).write_bytes(png(5, n))
    rows = [(file, file[:3], n % 2) for n, file in enumerate(files)]
    cells = "\n".join(f"{file};{label};{sender}" for file, label, sender in [("path", "label", "sender"), *rows])
    lines = [json.dumps({"path": file, "label": label, "sender": sender}) for file, label, sender in rows]
    (tmp_path / "photos" / "pool.csv").write_text(f"{cells}\n", encoding="utf-8-sig")
    (tmp_path / "photos" / "pool.jsonl").write_text("\n".join(lines), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(list(map(json.loads, lines))), tmp_path / "photos" / "pool.parquet")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pool.csv", "csv in object storage, separated by ;"),
        ("pool.jsonl", "jsonl in object storage"),
        ("pool.parquet", "parquet in object storage (1)"),
    ],
)
def test_a_table_of_paths_in_a_bucket_is_read_as_one_of_this_machine(bucket, photos, caplog, name, kind):
    url = upload(photos, f"{bucket}/photos")
    pool, local = pool_at(f"{url}/{name}"), pool_at(photos / name)
    assert (pool.name, pool.ids, pool.labels) == ("pool", local.ids, local.labels)
    assert pool.read_as[0].kind == kind
    asked = requests_of(caplog, lambda: [pool.read(row) for row in range(7)])
    assert len(asked) == 7
    assert not [record for record in caplog.records if "HEAD" in record.getMessage()]
    assert [pool.read(row) for row in (6, 0)] == [local.read(row) for row in (6, 0)]
    assert [pool.size(row) for row in range(7)] == [local.size(row) for row in range(7)]
    assert len({state.tobytes() for state in pool.store.states(np.arange(7))}) == 7


def test_where_and_root_choose_rows_and_objects(bucket, photos):
    upload(photos, f"{bucket}/elsewhere")
    url = upload(photos / "pool.csv", f"{bucket}/tables/pool.csv")
    wanted = {"where": "sender == 1", "separator": ";"}
    local = pool_at(photos / "pool.csv", **wanted)
    for path, root in ((url, f"{bucket}/elsewhere"), (url, str(photos)), (photos / "pool.csv", f"{bucket}/elsewhere")):
        pool = pool_at(path, root=root, **wanted)
        assert (pool.ids, [pool.read(row) for row in range(3)]) == (local.ids, [local.read(row) for row in range(3)])
    assert refusal(url).startswith(f"{url}: none of its 7 rows names an image; row 0: path 'cat/0.png' names no file")
    with pytest.raises(RecipeError, match="do not belong in a recipe"):
        pool_at(url, root="s3://AKIA:secret@bucket/photos")


def test_an_object_that_is_lost_or_lies_outside_is_a_bad_image(bucket, photos):
    upload(photos, f"{bucket}/photos")
    upload(photos / "cat" / "0.png", f"{bucket}/secret.png")
    cells = ["path,label", "cat/0.png,a", "cat/lost.png,a", "gone/0.png,a", "../secret.png,a", "/secret.png,a"]
    cells += [f"{bucket}/secret.png,a", "file:///etc/passwd,a", f"{bucket}/photos/dog/0.png,a", ",a"]
    (photos / "few.csv").write_text("\n".join(cells))
    pool = pool_at(upload(photos / "few.csv", f"{bucket}/photos/few.csv"))
    told = [told_by(lambda row=row: pool.read(row)) for row in range(9)]
    assert [bool(text) for text in told] == [row not in (0, 7) for row in range(9)]
    assert told[1:3] == [
        f"{bucket}/photos: the path {p!r}: there is no such object" for p in (cells[2][:-2], cells[3][:-2])
    ]
    assert all("points outside of it; only objects inside are read" in text for text in told[3:7])
    assert pool.ids[7:] == ("dog/0.png", "row-8")
    states = pool.store.states(pool.rows)
    assert states.any(1).tolist() == [row in (0, 7) for row in range(9)]


def test_an_object_that_is_replaced_is_noticed_by_who_reads_it(bucket, photos):
    url = upload(photos, f"{bucket}/photos")
    pool = pool_at(f"{url}/pool.csv")
    (photos / "cat" / "1.png").write_bytes(png(6, 1)[:-1])
    client = file_system("s3")  # a writer elsewhere: what is listed here stays as it is
    client.call_s3(
        "put_object", Bucket=bucket[5:], Key="photos/cat/1.png", Body=(photos / "cat" / "1.png").read_bytes()
    )
    with pytest.raises(OSError, match=r"cat/1\.png:? was changed since its rows were listed; start again"):
        pool.read(1)
    again = pool_at(f"{url}/pool.csv")
    assert again.read(1) == (photos / "cat" / "1.png").read_bytes()
    same = (again.store.states(again.rows) == pool.store.states(pool.rows)).all(1)
    assert same.tolist() == [row != 1 for row in range(7)]


def test_a_text_in_a_bucket_that_is_no_pool_is_refused_as_one_of_this_machine(bucket, photos, monkeypatch):
    def refused(text: str, **settings) -> str:
        (photos / "odd.csv").write_text(text)
        url = upload(photos / "odd.csv", f"{bucket}/odd.csv")
        local, told = refusal(photos / "odd.csv", **settings), refusal(url, **settings)
        assert told == local.replace(str(photos / "odd.csv"), url)
        return told

    assert "no image column; set image_column to the one" in refused("a,b\n1,2\n")
    assert "it is empty; the first line names the columns" in refused("")
    assert "split 'train' chooses nothing of one file" in refused("path,label\n", split="train")
    assert "there is no such object" in refusal(f"{bucket}/none.csv")
    upload(photos / "pool.csv", f"{bucket}/folder.csv/0.csv")
    assert "is a folder; of tables of text one file is read" in refusal(f"{bucket}/folder.csv")
    monkeypatch.setattr("homing.pools.remote_text._MOST", 100)
    large = upload(photos / "pool.csv", f"{bucket}/large.csv")
    assert "bytes of text; from object storage at most 100 are read: write it as parquet" in refusal(large)


# ---- connections and secrets ---------------------------------------------------------------------------------------


def test_a_server_that_never_answers_is_an_error_and_no_hang(monkeypatch):
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {
            "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "key": "a",
            "secret": "b",
            "config_kwargs": {"read_timeout": 0.2, "connect_timeout": 0.2, "retries": {"total_max_attempts": 1}},
        }
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        with pytest.raises(OSError, match=r"s3://pool/a\.tar: cannot be read"):
            RemoteFile("s3://pool/a.tar", 100, "etag").read(0, 10)
    assert file_system("s3").config_kwargs["read_timeout"] == 0.2  # what the user has set stays


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA123:topsecret@bucket/pool",
        "s3://AKIA123:top/secret@bucket/pool",
        "s3://bucket/pool?key=AKIA123&secret=topsecret",
        "gs://token-topsecret@bucket/pool",
        "s3://bucket/pool#topsecret",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_printed(url):
    text = f"data: {{source: {{path: '{url}'}}, target: {{path: t}}}}\ntraining: {{epochs: 0}}"
    for action in (lambda: parse_recipe(text), lambda: pool_at(url)):
        with pytest.raises(RecipeError, match="do not belong in a recipe") as caught:
            action()
        assert "secret" not in str(caught.value)
        assert "AKIA" not in str(caught.value)


def test_urls_stay_what_they_are_in_a_resolved_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUCKET", "shop")
    text = "data: {source: {path: 's3://$BUCKET/a/{000..003}.tar'}, target: {path: 'file:///tmp/t%20x'}}\n"
    recipe = parse_recipe(text + "training: {epochs: 0}", ["data.test.path=shards/{0..3}.tar"])
    data = recipe.data
    assert data.sources[0].path == "s3://shop/a/{000..003}.tar"
    assert data.target_pool.path == "/tmp/t x"
    assert data.test_pool.path == f"{tmp_path}/shards/{{0..3}}.tar"
    assert parse_recipe(recipe.to_yaml()) == recipe


def test_a_file_url_is_the_path_that_it_names(tmp_path):
    path = write_tar(tmp_path / "a b.tar", samples(0, 2))
    assert pool_at(f"file://{tmp_path}/a%20b.tar").ids == pool_at(path).ids


@pytest.mark.parametrize("url", ["memory://a/b.tar", "http://a/b.parquet", "ssh://a/b"])
def test_other_kinds_of_urls_are_refused_with_those_that_are_read(url):
    with pytest.raises(RecipeError, match="pools are read from s3, gs, hf, file, or a local path"):
        pool_at(url)


def test_a_missing_package_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert "pip install 'homing[remote]' gcsfs" in refusal("gs://bucket/pool.parquet")


@pytest.mark.filterwarnings("ignore")  # of a fork beside threads, and beside Lance
def test_a_process_that_was_forked_opens_connections_of_its_own(shards):
    pool = pool_at(shards)
    mine = pool.read(1)
    child = os.fork()
    if child == 0:
        os._exit(0 if pool.read(1) == mine and len(pool.read(30)) else 9)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.read(1) == mine
