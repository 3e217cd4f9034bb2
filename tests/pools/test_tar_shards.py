import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from drawn_pools import draw_pool
from homing.errors import DataError
from homing.features.cache import FeatureCache
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from packed_pools import add_member, png, samples, tar_folder, told_by, write_tar


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
def shards(tmp_path):
    """Three shards of four samples each."""
    for number in range(3):
        write_tar(tmp_path / "shards" / f"{number:04d}.tar", samples(4 * number, 4))
    return tmp_path / "shards"


@pytest.mark.parametrize("pattern", ["", "/{0000..0002}.tar", "/{0000,0001,0002}.tar", "/000{0..2}.tar"])
def test_a_folder_of_shards_and_patterns_are_one_pool(shards, pattern):
    pool = pool_at(f"{shards}{pattern}")
    assert pool.ids == tuple(f"{number:06d}" for number in range(12))
    assert pool.labels == ("cat", "dog") * 6
    assert [pool.read(row) for row in (11, 0, 5)] == [png(7, number) for number in (11, 0, 5)]
    assert pool.size(3) == len(png(7, 3))
    (read_as,) = pool.read_as
    assert (pool.name, read_as.kind, read_as.warnings) == ("shards", "tar shards (3)", ())
    assert read_as.columns["label"] == "cls"


def test_columns_of_json_serve_as_id_group_and_label(shards):
    pool = pool_at(shards / "0001.tar", id_column="key", group_column="camera", label_column="night")
    assert pool.read_as[0].kind == "tar shard"
    assert pool.ids == ("k4", "k5", "k6", "k7")
    assert pool.columns["camera"] == ("1", "2", "0", "1")
    assert pool.labels == ("true", "false", "true", "false")
    assert "there is no column 'lens'; columns: 'cls', 'camera', 'key', 'night'" in refusal(shards, label_column="lens")


@pytest.mark.parametrize(
    ("members", "labels"),
    [
        ({"a.cls": b"3", "b.cls": b"12"}, ("3", "12")),
        ({"a.txt": b"cat\n", "b.txt": "é".encode()}, ("cat", "é")),
        ({"a.json": b'{"label": "cat"}', "b.json": b'{"label": 7}', "a.txt": b"a cat."}, ("cat", "7")),
        ({"a.json": b'{"cls": 1}', "b.json": b'{"cls": 2}'}, ("1", "2")),
    ],
)
def test_a_class_is_that_of_cls_json_or_txt(tmp_path, members, labels):
    path = write_tar(tmp_path / "a.tar", {"a.png": png(1), "b.png": png(2), **members})
    assert pool_at(path).labels == labels


def test_a_packed_image_folder_has_the_folders_for_classes(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"./cat/a.1.png": png(1), "./dog/a.png": png(2), "dog/in/b.png": png(3)})
    pool = pool_at(path)
    assert (pool.ids, pool.labels) == (("cat/a", "dog/a", "dog/in/b"), ("cat", "dog", "dog"))


def test_a_sample_without_a_class_or_an_image_is_as_in_a_table(tmp_path):
    members = {"a.png": png(1), "a.cls": b"x", "b.cls": b"y"}
    pool = pool_at(write_tar(tmp_path / "a.tar", members))
    with pytest.raises(OSError, match="the sample holds no image"):
        pool.read(1)
    assert not pool.store.states(pool.rows)[1].any()
    assert "b has no label" in refusal(write_tar(tmp_path / "b.tar", {**members, "b.cls": b" "}))
    assert pool_at(tmp_path / "b.tar", labels="none").classes == ("unlabelled",)


def test_of_several_images_the_plainly_named_one_is_read(tmp_path):
    members = {"a.mask.png": png(2), "a.png": png(1), "a.cls": b"x"}
    assert pool_at(write_tar(tmp_path / "a.tar", members)).read(0) == png(1)
    assert "several images ('jpg', 'png')" in refusal(write_tar(tmp_path / "b.tar", {**members, "a.jpg": b"x"}))


def test_a_sample_that_two_shards_hold_is_an_error_with_both_names(shards):
    write_tar(shards / "0002.tar", samples(5, 2))
    message = refusal(shards)
    assert "0001.tar: the sample '000005' is in" in message
    assert "0002.tar too (2 keys are in two shards)" in message
    assert "is there twice" in refusal(write_twice(shards / "0002.tar"))


def write_twice(path):
    with tarfile.open(path, "w") as archive:
        for _ in range(2):
            add_member(archive, "a.png")
    return path


def test_an_index_is_built_once_kept_and_never_believed_of_another_file(shards, cache):
    first = pool_at(shards)
    kept = sorted(cache.rglob("*.parquet"))
    assert len(kept) == 3
    times = [path.stat().st_ino for path in kept]
    assert pool_at(shards).ids == first.ids
    assert [path.stat().st_ino for path in kept] == times
    # replaced under the same name and with the same size: another time of change
    old = os.stat(shards / "0001.tar")
    write_tar(shards / "0001.tar", samples(40, 4))
    os.utime(shards / "0001.tar", ns=(old.st_atime_ns, old.st_mtime_ns + 1))
    assert os.stat(shards / "0001.tar").st_size == old.st_size
    with pytest.raises(OSError, match=r"0001\.tar was changed since its rows were listed"):
        first.read(4)
    assert first.read(0) == png(7, 0)
    again = pool_at(shards)
    assert again.ids[4] == "000040"
    assert (first.store.states(first.rows)[:4] == again.store.states(again.rows)[:4]).all()


def test_a_damaged_index_is_found_again(shards, cache):
    ids = pool_at(shards).ids
    for path in cache.rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    assert pool_at(shards).ids == ids


def test_indices_are_counted_and_cleared_with_the_cache(shards, cache):
    pool_at(shards)
    entries = FeatureCache(cache, 10**9).entries()
    assert {entry.what for entry in entries} == {"indices of archives"}
    assert len(FeatureCache(cache, 0).clear()) == 3
    assert not list(cache.rglob("*.parquet"))


def test_a_cache_that_cannot_be_written_to_costs_nothing_but_time(shards, monkeypatch):
    monkeypatch.setenv("HOMING_CACHE", str(shards / "0000.tar"))
    assert len(pool_at(shards)) == 12


# ---- hostile and damaged archives ----------------------------------------------------------------------------------


def test_links_devices_and_names_that_lead_out_are_counted_and_left_out(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        add_member(archive, "cat", type=tarfile.DIRTYPE)
        add_member(archive, "cat/a.png", png(1))
        add_member(archive, "cat/._a.png", b"junk")
        add_member(archive, "cat/link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_member(archive, "cat/hard.png", type=tarfile.LNKTYPE, linkname="cat/a.png")
        add_member(archive, "cat/null.png", type=tarfile.CHRTYPE)
        add_member(archive, "../out.png", png(2))
        add_member(archive, "/etc/out.png", png(3))
        add_member(archive, "cat/sparse.png", png(4), pax_headers={"GNU.sparse.major": "1"})
        add_member(archive, f"cat/{'n' * 300}.png", png(5))
    pool = pool_at(tmp_path / "a.tar")
    assert pool.ids == ("cat/a", f"cat/{'n' * 300}")
    assert pool.read(1) == png(5)
    assert pool.read_as[0].warnings == (
        "members that are no plain files inside were left out: devices (1), links (2), names that lead out of the"
        " archive (2), sparse files (1)",
    )
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_names_is_read_as_tarfile_reads_it(tmp_path, form):
    names = [f"{'d' * 60}/{'e' * 60}/{number}.png" for number in range(2)] + ["é/ü.png"]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for number, name in enumerate(names):
            add_member(archive, name, png(number))
    pool = pool_at(tmp_path / "a.tar")
    assert pool.ids == tuple(name.removesuffix(".png") for name in names)
    assert [pool.read(row) for row in range(3)] == [png(number) for number in range(3)]


@pytest.mark.parametrize("cut", [700, 1_000_000])
def test_a_tar_that_is_cut_off_is_refused(shards, cut):
    path = shards / "0000.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) // 2 + 100)])
    assert "0000.tar: is cut off (at " in refusal(shards)


def test_a_tar_without_its_end_is_read_with_a_warning(shards):
    path = shards / "0000.tar"
    path.write_bytes(path.read_bytes().rstrip(b"\0") + b"\0" * 512)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 512 * 512])
    (warning,) = pool_at(shards).read_as[0].warnings
    assert "'0000.tar' ends without a tar's mark of its end" in warning


def damaged(path: Path, at: int, data: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    return path


def test_damaged_headers_and_other_files_are_refused(shards, tmp_path):
    second = 512 + -(-len(png(7, 0)) // 512) * 512
    assert f"is damaged at byte {second:,}" in refusal(damaged(shards / "0000.tar", second, b"x" * 20))
    (tmp_path / "a.tar").write_bytes(os.urandom(2_000))
    assert "a.tar: is no tar file" in refusal(tmp_path / "a.tar")
    (tmp_path / "b.tar").write_bytes(b"")
    assert "b.tar: no images" in refusal(tmp_path / "b.tar")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_a_compressed_tar_is_refused_with_the_remedy(tmp_path, name):
    with tarfile.open(tmp_path / name, "w:gz") as archive:
        add_member(archive, "cat/a.png", png(1))
    assert f"{name}: is compressed" in refusal(tmp_path / name)
    assert "unpack it to a plain .tar" in refusal(tmp_path)


def with_sum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        (b"x", b"%011o\0" % (1 << 30), "a header at byte 0 is 1,073,741,824 bytes long"),
        (b"L", b"%011o\0" % (1 << 21), "a header at byte 0 is 2,097,152 bytes long"),
        (b"0", b"\x80" + (1 << 60).to_bytes(11, "big"), "is cut off"),
        (b"0", b"\xff" * 12, "is no tar file"),  # below zero
        (b"0", b"-0000000777\0", "is no tar file"),
    ],
)
def test_headers_that_lie_about_sizes_cost_nothing(tmp_path, kind, size, said):
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    header[156:157], header[124:136] = kind, size
    (tmp_path / "a.tar").write_bytes(with_sum(header) + bytes(1024))
    assert said in refusal(tmp_path / "a.tar")


def read_all(path):
    pool = pool_at(path)
    return [pool.read(row) for row in range(len(pool))]


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_tar_is_read_or_refused(shards, seed):
    import random

    draw = random.Random(seed)
    whole = (shards / "0000.tar").read_bytes()
    for number in range(60):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path = shards.parent / f"{number}.tar"
        path.write_bytes(data[: draw.randint(0, len(data))])
        assert "\n" not in told_by(lambda path=path: read_all(path))


# ---- which paths are shards ----------------------------------------------------------------------------------------


def test_a_missing_shard_of_a_pattern_is_named(shards):
    assert f"{shards}/0003.tar: no such file; correct the path or pattern" in refusal(f"{shards}/{{0000..0003}}.tar")
    assert "write a range, {0000..0127}" in refusal(f"{shards}/{{x}}.tar")
    assert "does not count upwards" in refusal(f"{shards}/{{3..0}}.tar")


def test_splits_of_shards_are_told_and_chosen(tmp_path):
    for number, split in enumerate(("train", "val")):
        write_tar(tmp_path / "s" / f"{split}-0000.tar", samples(4 * number, 4))
    assert (
        "the shards are named for the splits train, val; all were read"
        in pool_at(tmp_path / "s").read_as[0].warnings[0]
    )
    assert pool_at(tmp_path / "s", split="val").ids[0] == "000004"
    assert "no tar file is called for the split 'dev'" in refusal(tmp_path / "s", split="dev")


def test_a_folder_of_images_beside_a_tar_stays_one(tmp_path):
    folder = draw_pool(tmp_path / "pool", {"cat": 1, "dog": 1})
    tar_folder(folder, folder / "old.tar")
    pool = pool_at(folder)
    assert pool.read_as[0].kind == "image folder"
    assert "1 .tar (first: 'old.tar')" in pool.read_as[0].warnings[0]


def test_the_folder_that_was_packed_whole_is_no_class(tmp_path):
    members = {f"./pool/{name}.png": png(number) for number, name in enumerate(["cat/a", "cat/b\nc", "dog/in/a"])}
    pool = pool_at(write_tar(tmp_path / "a.tar", members))
    assert (pool.ids, pool.labels) == (("pool/cat/a", "pool/cat/b\nc", "pool/dog/in/a"), ("cat", "cat", "dog"))
    assert pool.read_as[0].columns["label"] == "the folder directly in its folder 'pool/'"


def test_folders_that_are_splits_are_refused_as_in_an_image_folder(tmp_path):
    members = {f"{name}.png": png(number) for number, name in enumerate(["train/cat/a", "train/dog/a", "val/cat/b"])}
    message = refusal(write_tar(tmp_path / "a.tar", members))
    assert "'train', 'val' are named for splits, not classes" in message
    assert message.endswith("pack each into a tar of its own")


def test_split_chooses_among_named_shards_too(shards):
    assert "no tar file is called for the split 'train'" in refusal(shards / "0001.tar", split="train")
    (shards / "0001.tar").rename(shards / "train-1.tar")
    assert len(pool_at(shards / "{0000,train-1}.tar", split="train")) == 4


def test_a_suffix_of_its_own_for_each_sample_takes_no_square_of_memory(tmp_path):
    members = {f"c/{number:05d}.{number}.{kind}": b"x" for number in range(1_500) for kind in ("png", "txt")}
    path = write_tar(tmp_path / "a.tar", members)
    tracemalloc.start()
    pool = pool_at(path, labels="none")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pool) == 1_500
    assert peak < 9e6  # a number for each pair of suffix and sample takes 18 MB


def test_tars_that_were_joined_are_told(tmp_path):
    first, second = (write_tar(tmp_path / f"{name}.tar", {f"{name}/a.png": png(1)}) for name in "ab")
    first.write_bytes(first.read_bytes() + second.read_bytes())
    pool = pool_at(first)
    assert pool.ids == ("a/a",)
    assert "what lies behind the mark of the tar's end (1)" in pool.read_as[0].warnings[0]


def test_keys_and_names_that_say_nothing_of_a_tar_are_refused(shards):
    assert "root means nothing for tar shard; leave it out" in refusal(shards / "0001.tar", root=str(shards))
    assert "shards/{0000..0127}.tar" in refusal(shards / "*.tar")
    assert "no images; tar shard" in refusal(write_tar(shards / "empty.tar", {}))


def test_a_picture_that_was_replaced_in_a_shard_makes_another_pool(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(0, 4))
    before = pool_at(path).identity()
    write_tar(path, {**samples(0, 4), "000001.png": png(9, size=40)})
    assert pool_at(path).identity() != before
    write_tar(path, samples(0, 4))
    assert pool_at(path).identity() == before
