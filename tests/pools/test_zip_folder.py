import io
import os
import struct
import zipfile
from contextlib import suppress

import pytest

from drawn_pools import draw_pool
from homing.errors import DataError
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
from packed_pools import png, told_by, zip_folder


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=str(path), **settings))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        pool_at(path, **settings)
    return str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("zips") / "pool", {"cat": 3, "dog": 2})


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "pool/"])
def test_a_zip_is_read_as_the_folder_that_was_packed(folder, tmp_path, method, top):
    pool, whole = pool_at(zip_folder(folder, tmp_path / "a.zip", top=top, method=method)), pool_at(folder)
    assert (pool.ids, pool.labels) == (whole.ids, whole.labels)
    assert [pool.read(row) for row in range(5)] == [whole.read(row) for row in range(5)]
    assert pool.size(2) == whole.size(2)
    assert pool.read_as[0].kind == "zip of an image folder"
    assert (
        pool.read_as[0].columns["label"]
        == f"the folder directly in {'its folder ' + repr(top) if top else 'the zip file'}"
    )


def test_splits_unlabelled_and_questions_to_a_folder_hold_for_a_zip(folder, tmp_path):
    path = zip_folder(folder, tmp_path / "a.zip", top="pool/train/")
    assert pool_at(path, split="train").labels == ("cat", "cat", "cat", "dog", "dog")
    assert pool_at(path, labels="none").classes == ("unlabelled",)
    assert "named for splits, not classes" in refusal(
        zip_of(tmp_path / "b.zip", {"train/cat/1.png": png(1), "test/cat/2.png": png(2)})
    )
    assert "no column 'kind'" in refusal(path, label_column="kind")
    assert "lies directly in the pool" in refusal(zip_of(tmp_path / "c.zip", {"1.png": png(1), "cat/2.png": png(2)}))
    assert "no images of the class 'dog'" in refusal(
        zip_of(tmp_path / "d.zip", {"cat/1.png": png(1), "dog/2.txt": b""})
    )
    told = pool_at(zip_of(tmp_path / "e.zip", {"cat/1.png": png(1), "labels.csv": b"a,b"})).read_as[0].warnings
    assert "tables were not read: 1 .csv" in told[0]


def test_members_that_are_no_plain_files_inside_are_left_out(tmp_path):
    names = ("cat/1.png", "../out.png", "/etc/x.png", "c\\d.png", "__MACOSX/cat/._1.png")
    path = zip_of(tmp_path / "a.zip", {name: png(number) for number, name in enumerate(names)})
    link = zipfile.ZipInfo("cat/2.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    pool = pool_at(path)
    assert pool.ids == ("cat/1.png",)
    assert pool.read_as[0].warnings[0].endswith("left out: links (1), names that lead out of the archive (3)")


def test_a_member_that_grows_beyond_all_pictures_is_refused_unread(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", png(1))
        with archive.open("cat/2.png", "w") as member:
            for _ in range(70):
                member.write(bytes(1_000_000))
    with pytest.raises(OSError, match="would grow to 70,000,000, which no picture does"):
        pool_at(path).read(1)
    # and one that says that it is small grows no further than it says
    lying(path, b"cat/2.png", 1_000)
    with pytest.raises(OSError, match="the zip file is damaged here"):
        pool_at(path).read(1)


def lying(path, name: bytes, size: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.rindex(name) - 46
    data[at + 24 : at + 28] = struct.pack("<I", size)
    path.write_bytes(data)


def test_damage_is_told_of_the_picture_or_of_the_file(folder, tmp_path):
    path = zip_folder(folder, tmp_path / "a.zip", method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index((folder / "cat/001.png").read_bytes())
    data[at + 40] ^= 1
    path.write_bytes(data)
    pool = pool_at(path)
    with pytest.raises(OSError, match="the zip file is damaged here"):
        pool.read(1)
    pool.read(0)
    path.write_bytes(data[:-30])
    assert "cannot be read as a zip file" in refusal(path)
    with pytest.raises(OSError, match="was changed since its rows were listed"):
        pool.read(0)


def test_methods_other_than_stored_and_deflated_and_secrets_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/1.png", png(1))
    with pytest.raises(OSError, match="is packed by method 14; stored and deflated are read"):
        pool_at(tmp_path / "a.zip").read(0)


def test_a_damaged_zip_is_read_or_refused(folder, tmp_path):
    import random

    draw, whole = random.Random(1), zip_folder(folder, tmp_path / "a.zip").read_bytes()
    for number in range(150):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        assert "\n" not in told_by(lambda path=path: pool_at(path))
        with suppress(DataError):
            pool = pool_at(path)
            for row in range(len(pool)):
                assert "\n" not in told_by(lambda pool=pool, row=row: pool.read(row))


def test_states_change_with_the_file_and_the_member(folder, tmp_path):
    path = zip_folder(folder, tmp_path / "a.zip")
    pool = pool_at(path)
    before = pool.store.states(pool.rows)
    assert len({state.tobytes() for state in before}) == 5
    os.utime(path, ns=(1, 1))
    assert not (pool.store.states(pool.rows) == before).all(1).any()
    path.unlink()
    assert not pool.store.states(pool.rows).any()


def test_a_member_that_lies_outside_or_has_no_name_is_told(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"cat/1.png": png(1), "qqqq": b"x"})
    path.write_bytes(path.read_bytes().replace(b"qqqq", b"\0qqq"))  # a name ends at the first zero
    assert pool_at(path).read_as[0].warnings[0].endswith("names that lead out of the archive (1)")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"cat/1.png") - 46
    data[at + 42 : at + 46] = b"\xf0\xff\xff\x0f"
    path.write_bytes(data)
    assert "a.zip: says that 'cat/1.png' lies outside of it" in refusal(path)


def test_other_files_called_zip_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(io.BytesIO(b"PK nothing").read())
    assert "a.zip: cannot be read as a zip file" in refusal(tmp_path / "a.zip")
    assert "b.zip: no images" in refusal(zip_of(tmp_path / "b.zip", {"a.txt": b""}))
