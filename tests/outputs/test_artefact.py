"""Files and folders are there whole or not at all, and what a kill left is removed by the next writer."""

import os
import resource
import signal
import time

import pytest
import torch
from safetensors.torch import save_file

from homing.outputs.artefact import (
    digest_of,
    folder_whole,
    host,
    is_unfinished,
    made_from,
    mark_done,
    open_whole,
    remove_leftovers,
    write_json,
    write_whole,
)
from processes import LONG_ENOUGH, ended, start


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", "text")  # fails in the middle of writing
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    write_json(tmp_path / "a", {"é": float("nan")})
    assert (tmp_path / "a").read_text() == '{\n  "é": null\n}\n'
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(FileExistsError), folder_whole(tmp_path / "new" / "corpus") as folder:
        (folder / "a").mkdir() or (folder / "a").mkdir()  # fails in the middle of writing
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "new" / "corpus").mkdir()
    with folder_whole(tmp_path / "new" / "corpus") as folder:
        (folder / "inside").mkdir()
        (folder / "inside" / "a").write_text("a")
        (folder / "link").symlink_to("nowhere")
        assert os.listdir(tmp_path / "new" / "corpus") == []
    assert (tmp_path / "new" / "corpus" / "inside" / "a").read_text() == "a"
    assert os.listdir(tmp_path / "new") == ["corpus"]


def test_a_folder_that_is_in_use_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(OSError, match="not empty"), folder_whole(tmp_path / "mine"):
        (tmp_path / "mine" / "precious").touch()  # meanwhile
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="ot a directory"), folder_whole(tmp_path / "file"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file", "mine"]


def test_what_we_did_not_write_stays_in_a_folder_that_is_written_again(tmp_path):
    for text in ("old", "new"):
        with folder_whole(tmp_path / "model", into_existing=True) as folder:
            (folder / "deep").mkdir()
            for name in ("config.json", "deep/weights"):
                (folder / name).write_text(text)
        (tmp_path / "model" / "precious.txt").write_text("mine")
    found = {name: (tmp_path / "model" / name).read_text() for name in ("config.json", "deep/weights", "precious.txt")}
    assert found == {"config.json": "new", "deep/weights": "new", "precious.txt": "mine"}
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_folder_was_made_from_is_known_once_it_is_whole(tmp_path):
    assert made_from(tmp_path) is None
    (tmp_path / "done.json").write_text("{")
    assert made_from(tmp_path) is None
    mark_done(tmp_path, {"source": digest_of("a", "bc")})
    assert made_from(tmp_path) == {"source": digest_of("a", "bc")}
    assert digest_of("a", "bc") != digest_of("ab", "c")


def _write_until_killed(folder):
    with open_whole(folder / "file") as file, folder_whole(folder / "folder") as unfinished:
        file.write(b"half")
        (unfinished / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_by_the_next_writer_and_nothing_else(tmp_path):
    killed = start(_write_until_killed, tmp_path)
    killed.join()
    left = os.listdir(tmp_path)
    assert len(left) == 2
    assert all(is_unfinished(tmp_path / name) for name in left)
    for name in (".notes.tmp", ".file.123.tmp", "precious.tmp"):
        (tmp_path / name).touch()
    with open_whole(tmp_path / "a") as file:
        remove_leftovers(tmp_path)  # not what this process is at work on
        write_whole(tmp_path / "b", b"b")
        file.write(b"a")
    assert sorted(os.listdir(tmp_path)) == [".file.123.tmp", ".notes.tmp", "a", "b", "precious.tmp"]


def test_what_a_living_process_or_another_host_writes_stays(tmp_path):
    living, elsewhere = f".x.homing-{host()}-{os.getppid()}-0.tmp", ".x.homing-elsewhere.1-1-0.tmp"
    for name in (living, elsewhere):
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == []
    long_ago = time.time() - 25 * 3600
    for name in (living, elsewhere):
        os.utime(tmp_path / name, (long_ago, long_ago))
    assert remove_leftovers(tmp_path) == [tmp_path / elsewhere]


def test_a_name_of_any_length_can_be_written(tmp_path):
    write_whole(tmp_path / ("é" * 127), b"")
    assert os.listdir(tmp_path) == ["é" * 127]


def test_a_full_disk_below_safetensors_is_told_like_any_other(tmp_path):
    process = start(_fill_up, tmp_path / "model")
    assert ended(process, LONG_ENOUGH)
    assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == []


def _fill_up(folder) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
    with pytest.raises(OSError, match="File too large") as told, folder_whole(folder) as unfinished:
        save_file({"weights": torch.zeros(1_000)}, unfinished / "model.safetensors")
    assert told.value.filename == str(folder)


def test_a_place_that_cannot_be_written_to_is_told_by_its_own_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"'.*/file/out.csv'$"), open_whole(tmp_path / "file" / "out.csv"):
        pass
