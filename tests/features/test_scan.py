"""One pass that reads each image once; what is known is neither read nor computed again."""

import os
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from drawn_pools import draw_picture, draw_pool
from homing.errors import Interrupted
from homing.features.scan import scan, share_of
from small_scan import SmallScan

COUNTS = {"cat": 40, "dog": 40, "emu": 20}


@pytest.fixture
def root(tmp_path):
    return draw_pool(tmp_path / "pool", COUNTS)


@pytest.fixture
def small(root, tmp_path):
    return SmallScan(root, tmp_path / "cache")


class Counted:
    """A store of images that counts what is read, and does something before."""

    def __init__(self, store, before=lambda row: None):
        self.store, self.before, self.read_rows = store, before, []

    def __len__(self):
        return len(self.store)

    def read(self, row):
        self.before(row)
        self.read_rows.append(row)
        return self.store.read(row)

    def size(self, row):
        return self.store.size(row)

    def states(self, rows):
        return self.store.states(rows)


def counted(small, before=lambda row: None):
    pictures = small.pictures()
    pictures.images.store = Counted(pictures.images.store, before)
    return pictures


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_features_are_those_of_the_model_called_on_all_pictures_at_once(root, tmp_path, workers, batch_size):
    small = SmallScan(root, tmp_path / "cache", workers=workers)
    found, features = small.scan(batch_size=batch_size)
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)  # rounding of other batch sizes
    assert (found.num_passed, found.bad, found.features.shape) == (100, [], tuple(features.shape))
    assert found.digests.any(1).all()


def test_features_do_not_depend_on_what_else_is_in_a_batch(root, tmp_path):
    """Kernels round by the size of a batch; rates of one scan and of three processes' scans are the same."""
    _, whole = SmallScan(root, tmp_path / "cache", backbone="resnet18").scan()
    apart = SmallScan(root, tmp_path / "parts", backbone="resnet18")
    for number in (1, 2, 3):
        assert apart.scan_part(number, 3) in (33, 34)
    found, parts = apart.scan()
    assert found.num_passed == 0
    assert torch.equal(parts, whole)


def test_each_image_is_read_once_and_the_second_time_not_at_all(small):
    pictures = counted(small)
    _, first = small.scan(pictures)
    assert sorted(pictures.images.store.read_rows) == list(range(100))
    pictures = counted(small)
    found, again = small.scan(pictures)
    assert (pictures.images.store.read_rows, found.num_passed) == ([], 0)
    assert torch.equal(first, again)


def test_a_hundredth_that_changed_is_all_that_is_scanned(small, root):
    _, first = small.scan()
    draw_picture(77, 1).save(root / "dog" / "017.png")
    pictures = counted(small)
    found, again = small.scan(pictures)
    row = pictures.images.names.index("dog/017.png")
    assert (found.num_passed, pictures.images.store.read_rows) == (1, [row])
    changed = (first != again).any(1)
    assert changed.nonzero().flatten().tolist() == [row]
    torch.testing.assert_close(again, small.wanted(), rtol=1e-4, atol=1e-5)


def test_a_pool_that_grew_scans_what_is_new(small, root):
    small.scan()
    for number in range(3):
        draw_picture(99, number).save(root / "cat" / f"9{number}.png")
    found, features = small.scan()
    assert found.num_passed == 3
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)


def test_files_renamed_copied_or_touched_are_read_but_not_computed(small, root):
    small.scan()
    (root / "cat" / "003.png").rename(root / "cat" / "zzz.png")
    shutil.copy(root / "dog" / "001.png", root / "emu" / "copy.png")
    os.utime(root / "emu" / "002.png", ns=(1, 1))
    pictures = counted(small)
    found, features = small.scan(pictures)
    assert (found.num_passed, len(pictures.images.store.read_rows)) == (0, 3)
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)
    pictures = counted(small)  # and the next time they are known by their new names
    small.scan(pictures)
    assert pictures.images.store.read_rows == []


def test_an_image_edited_before_it_is_read_poisons_nothing(small, root):
    """The state is listed, then the file changes, then it is read: its features must never stand for the old bytes."""
    old, path = (root / "cat" / "005.png").read_bytes(), root / "cat" / "005.png"
    stamp = path.stat().st_mtime_ns

    def edit(row):
        if row == 5 and path.read_bytes() == old:
            draw_picture(55, 5).save(path)

    _, edited = small.scan(counted(small, edit))
    torch.testing.assert_close(edited, small.wanted(), rtol=1e-4, atol=1e-5)
    path.write_bytes(old)  # as it was when it was listed, to the nanosecond
    os.utime(path, ns=(stamp, stamp))
    found, features = small.scan()
    assert found.num_passed == 1
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)


def test_verify_finds_a_change_that_size_and_time_do_not_show(small, root):
    _, first = small.scan()
    one, other = root / "cat" / "001.png", draw_picture(88, 8).convert("RGB")
    about = one.stat()
    other.resize((16, 16)).save(one)
    with one.open("ab") as file:
        file.truncate(about.st_size)  # zeros after a PNG's end do not matter
    os.utime(one, ns=(about.st_mtime_ns, about.st_mtime_ns))
    assert one.stat().st_size == about.st_size
    blind, same = small.scan()
    assert (blind.num_passed, torch.equal(first, same)) == (0, True)
    found, features = small.scan(verify=True)
    assert found.num_passed == 1
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)
    after, again = small.scan()
    assert (after.num_passed, torch.equal(again, features)) == (0, True)
    before = len(small.cache.entries())
    small.scan(verify=True)
    assert len(small.cache.entries()) == before  # what was verified and found as it was leaves nothing behind


def test_bad_images_are_found_on_the_way_and_remembered(small, root):
    (root / "cat" / "001.png").write_bytes(b"no picture")
    (root / "dog" / "002.png").write_bytes(b"")
    (root / "emu" / "000.png").unlink()
    (root / "emu" / "000.png").symlink_to(root / "nowhere")
    found, features = small.scan()
    reasons = {item.name: item.reason for item in found.bad}
    assert reasons["cat/001.png"] == "not a readable image: of no image format"
    assert reasons["dog/002.png"] == "not a readable image: an empty file"
    assert "No such file" in reasons["emu/000.png"]
    assert [item.row for item in found.bad] == [1, 42, 80]
    assert features.isnan().all(1).nonzero().flatten().tolist() == [1, 42, 80]
    pictures = counted(small)
    again, _ = small.scan(pictures)
    assert again.bad == found.bad
    assert pictures.images.store.read_rows == [80]  # what could not be read may be there the next time
    kept = again.keep(np.setdiff1d(np.arange(100), [1, 42, 80]))
    assert (kept.bad, len(kept), kept.features.shape[0]) == ([], 97, 97)
    assert not kept.features.tensor().isnan().any()


def test_an_image_that_was_mended_is_bad_no_more(small, root):
    path = root / "cat" / "001.png"
    good = path.read_bytes()
    path.write_bytes(b"no picture")
    assert len(small.scan()[0].bad) == 1
    path.write_bytes(good)
    found, features = small.scan()
    assert (found.bad, found.num_passed) == ([], 1)
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "backbone", ["mobilenetv3_small_050", "mobilenetv4_conv_small_035", "ghostnet_050", "lcnet_035"]
)
def test_a_batch_of_nothing_but_bad_images_is_scanned_by_models_whose_head_widens(root, tmp_path, backbone):
    for number in range(8):
        (root / "cat" / f"{number:03d}.png").write_bytes(b"no picture")
    small = SmallScan(root, tmp_path / "cache", backbone=backbone)
    found, features = small.scan()
    assert [item.row for item in found.bad] == list(range(8))
    assert features[:8].isnan().all()
    assert features[8:].isfinite().all()


def test_a_pool_of_nothing_but_bad_images_is_scanned(tmp_path):
    root = tmp_path / "pool" / "cat"
    root.mkdir(parents=True)
    for number in range(3):
        (root / f"{number}.png").write_bytes(b"no picture")
    found, features = SmallScan(root.parent, tmp_path / "cache").scan()
    assert (len(found.bad), found.num_passed, len(features)) == (3, 0, 3)


def test_a_stop_keeps_what_was_done(small):
    asked = []

    def stop_asked():
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(Interrupted):
        small.scan(stop_asked=stop_asked)
    found, features = small.scan()
    assert found.num_passed == 100 - 6 * 8
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)


def test_half_precision_rows_differ_by_their_rounding_alone(root, tmp_path):
    small = SmallScan(root, tmp_path / "cache", dtype="float16")
    _, features = small.scan()
    assert features.dtype == torch.float32
    assert torch.equal(features, features.half().float())
    torch.testing.assert_close(features, small.wanted(), rtol=1e-3, atol=1e-4)


def test_without_a_model_bad_images_are_found_and_canvases_kept(small, root):
    (root / "cat" / "001.png").write_bytes(b"no picture")
    pictures = counted(small)
    rows = np.arange(100)
    with small.open_goodness() as store:
        found = scan(pictures, rows, store, Accelerator(cpu=True))
    assert [item.row for item in found.bad] == [1]
    assert found.features.shape == (100, 0)
    with small.open_canvases() as store:
        kept = scan(pictures, rows, store, Accelerator(cpu=True))
        assert [item.row for item in kept.bad] == [1]
        plain = small.pictures().images.fetch(rows[2:])
        np.testing.assert_array_equal(kept.features.take(rows[2:]), plain)
        images = small.pictures().images
        images.attach(kept.features, kept.digests)
        images.select(rows[2:])
        for name in images.names:
            (root / name).unlink()
        np.testing.assert_array_equal(images.fetch(np.array([5, 3, 97])), plain[[5, 3, 97]])
        pictures.images.close()


def test_features_are_scanned_from_canvases_on_disk_unless_the_bytes_changed(small, root, monkeypatch):
    pictures = small.pictures()
    with small.open_canvases() as store:
        kept = scan(pictures, np.arange(100), store, Accelerator(cpu=True))
        pictures.images.attach(kept.features, kept.digests)
        draw_picture(66, 6).save(root / "dog" / "000.png")
        decoded = []
        import homing.pools.images as module

        decode = module.decode
        monkeypatch.setattr(module, "decode", lambda *a: decoded.append(1) or decode(*a))
        _, features = small.scan(pictures)
    monkeypatch.undo()
    assert len(decoded) == 1
    torch.testing.assert_close(features, small.wanted(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("total", [0, 1, 5, 64])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_shares_are_whole_apart_and_even(total, count):
    shares = [share_of(np.arange(total), number, count) for number in range(count)]
    assert np.concatenate(shares).tolist() == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
