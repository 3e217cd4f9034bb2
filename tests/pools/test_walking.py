"""What lies below a folder is listed once, in the order of its paths, and nothing but regular files is ever opened."""

import os
import socket

import numpy as np
import pytest

from drawn_pools import draw_picture, draw_pool
from homing.errors import DataError
from homing.pools.files import FolderImages
from homing.pools.reading import read_pool
from homing.pools.unlabelled import find_images
from homing.pools.walking import list_images
from homing.recipe.data import PoolSpec


def test_folders_that_link_to_each_other_list_each_file_once(tmp_path):
    names = [f"c{number}" for number in range(8)]
    draw_pool(tmp_path, dict.fromkeys(names, 3))
    for one in names:
        for other in names:
            if one != other:
                (tmp_path / one / f"to-{other}").symlink_to(tmp_path / other)
    listing = list_images(tmp_path)
    assert listing.files == [f"{name}/{number:03d}.png" for name in names for number in range(3)]
    assert len(listing.again) == 56


def test_a_folder_keeps_the_path_that_needs_no_link(tmp_path):
    draw_pool(tmp_path, {"zebra": 2, "cat": 1})
    (tmp_path / "cat" / "stripes").symlink_to(tmp_path / "zebra")
    assert list_images(tmp_path).files == ["cat/000.png", "zebra/000.png", "zebra/001.png"]


def test_a_class_that_only_links_to_another_is_refused_with_the_reason(tmp_path):
    draw_pool(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "emu").symlink_to(tmp_path / "cat")
    with pytest.raises(DataError, match=r"no images of the class 'emu'.*emu leads to the folder cat, listed already"):
        read_pool(PoolSpec(path=str(tmp_path)))


def test_folders_deeper_than_any_pool_are_an_error(tmp_path):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(100):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    with pytest.raises(DataError, match="folders lie more than 64 deep"):
        list_images(tmp_path)


JUNK = [
    *("Thumbs.db", ".DS_Store", "desktop.ini", "cat/._000.png", "cat/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg"),
    *("#recycle/a.png", "__MACOSX/cat/000.png", "$RECYCLE.BIN/x.png", "cat/.thumbnails/x.png", "lost+found/x.png"),
]


@pytest.mark.parametrize("junk", JUNK)
def test_what_operating_systems_leave_behind_is_nothing_in_pools_and_predictions(tmp_path, junk):
    draw_pool(tmp_path, {"cat": 2})
    (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
    draw_picture(0).save(tmp_path / junk, "png")
    assert read_pool(PoolSpec(path=str(tmp_path))).ids == ("cat/000.png", "cat/001.png")
    assert not read_pool(PoolSpec(path=str(tmp_path))).read_as[0].skipped
    assert len(find_images([tmp_path])[1]) == 2


def test_files_of_other_kinds_are_counted_by_their_suffix(tmp_path):
    draw_pool(tmp_path, {"cat": 1})
    for name in ("a.dng", "b.DNG", "scan", "notes.txt"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    listing = list_images(tmp_path)
    assert listing.skipped == {".dng": 2, "": 1, ".txt": 1}
    assert listing.example[".dng"] == "cat/a.dng"


@pytest.mark.parametrize("suffix", ["jpe", "avif", "jp2", "JFIF", "tiff", "webp", "gif", "pbm"])
def test_formats_that_are_decoded_are_listed(tmp_path, suffix):
    draw_pool(tmp_path, {"cat": 1})
    (tmp_path / "cat" / f"a.{suffix}").write_bytes(b"x")
    assert f"cat/a.{suffix}" in list_images(tmp_path).files


def _odd_things(folder):
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket is short
        listener.bind("socket.png")
        os.chdir(here)
    with (folder / "huge.png").open("wb") as file:
        file.truncate(3 << 30)  # holes, not bytes
    return folder


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    folder = _odd_things(tmp_path / "odd")
    told = {
        "pipe.png": "is a pipe",
        "zero.png": "is a device",
        "folder.png": "is a folder",
        "socket.png": "is a socket",
        "huge.png": "3,221,225,472 bytes, more than a picture has",
        "loop.png": "Too many levels of symbolic links",
        "gone.png": "No such file",
    }
    store = FolderImages(folder, list(told))
    for row, reason in enumerate(told.values()):
        with pytest.raises(OSError, match=reason):
            store.read(row)
        with pytest.raises(OSError, match=reason):
            store.size(row)
    assert not store.states(np.array([6])).any()


def test_a_pool_with_pipes_and_devices_is_listed_without_opening_them(tmp_path):
    _odd_things(tmp_path / "cat")
    draw_picture(0).save(tmp_path / "cat" / "000.png")
    (tmp_path / "cat" / "folder.png").rmdir()
    pool = read_pool(PoolSpec(path=str(tmp_path)))
    assert pool.ids == [f"cat/{name}.png" for name in ("000", "gone", "huge", "loop", "pipe", "socket", "zero")]


def test_the_state_of_a_file_changes_with_its_size_its_time_and_its_name(tmp_path):
    draw_pool(tmp_path, {"cat": 2})
    store = FolderImages(tmp_path, ["cat/000.png", "cat/001.png"])
    rows = np.arange(2)
    before = store.states(rows)
    assert (before[0] != before[1]).any()
    assert (store.states(rows[::-1]) == before[::-1]).all()
    found = os.stat(tmp_path / "cat/000.png")
    os.utime(tmp_path / "cat/000.png", ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert (store.states(rows) != before).any(1).tolist() == [True, False]
    os.utime(tmp_path / "cat/000.png", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (store.states(rows) == before).all()
    (tmp_path / "cat/000.png").write_bytes((tmp_path / "cat/000.png").read_bytes() + b"x")
    os.utime(tmp_path / "cat/000.png", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (store.states(rows) != before).any(1).tolist() == [True, False]
