import numpy as np
import pytest

from drawn_pools import draw_picture, draw_pool
from homing.errors import DataError
from homing.pools.images import Images
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec

CANVAS = 16
BAD = {"cat/001.png": b"no picture", "dog/002.png": b"", "emu/000.png": None}


@pytest.fixture
def root(tmp_path):
    return draw_pool(tmp_path / "pool", {"cat": 4, "dog": 4, "emu": 3})


def images_at(root, **settings):
    pool = read_pool(PoolSpec(path=str(root)))
    return Images(pool.store, pool.rows, pool.ids, canvas=CANVAS, **settings)


def damage(root) -> None:
    for name, data in BAD.items():
        (root / name).unlink()
        if data is None:
            (root / name).symlink_to(root / "nowhere")
        else:
            (root / name).write_bytes(data)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_canvases_do_not_depend_on_cache_or_threads(root, cache_gb, workers):
    plain, other = images_at(root, cache_gb=0.0), images_at(root, cache_gb=cache_gb, workers=workers)
    rows = np.array([3, 3, 0, 10, 7])
    for _ in range(2):  # the second time out of the cache, where there is one
        np.testing.assert_array_equal(other.fetch(rows), plain.fetch(rows))
    np.testing.assert_array_equal(other.fetch(np.arange(11)), plain.fetch(np.arange(11)))
    assert other.fetch(rows).dtype == np.uint8
    other.close()


def test_no_two_rows_share_a_picture(root):
    canvases = images_at(root).fetch(np.arange(11))
    assert len({canvas.tobytes() for canvas in canvases}) == 11


def test_no_rows_give_no_canvases(root):
    for cache_gb in (0.0, 1.0):
        assert images_at(root, cache_gb=cache_gb).fetch(np.arange(0)).shape == (0, CANVAS, CANVAS, 3)


def test_the_cache_keeps_what_was_decoded_once(root):
    images = images_at(root)
    before = images.fetch(np.array([0]))
    (root / "cat" / "000.png").unlink()
    np.testing.assert_array_equal(images.fetch(np.array([0])), before)


def test_the_cache_keeps_as_many_as_fit_the_ones_asked_for_first(root):
    size = CANVAS * CANVAS * 3
    images = images_at(root, cache_gb=4 * size / 1e9, cached_first=np.array([9, 10]), workers=2)
    before = images.fetch(np.arange(11))
    assert images.num_cached == 4
    for name in images.names:
        (root / name).write_bytes(b"no picture")
    np.testing.assert_array_equal(images.fetch(np.array([10, 0, 9, 1])), before[[10, 0, 9, 1]])
    with pytest.raises(DataError, match=r"cat/002\.png"):
        images.fetch(np.array([2]))
    images.select(np.array([9, 2, 1]))  # places in the cache go with their rows
    np.testing.assert_array_equal(images.fetch(np.array([2, 0])), before[[1, 9]])
    images.close()
    assert images_at(root, cache_gb=1e-9).num_cached == 0


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_a_bad_image_stops_a_fetch_with_its_name_and_no_other_pixels(root, cache_gb, workers):
    damage(root)
    images = images_at(root, cache_gb=cache_gb, workers=workers)
    for row, name in enumerate(images.names):
        if name in BAD:
            with pytest.raises(DataError) as caught:
                images.fetch(np.array([0, row]))
            assert str(caught.value).startswith(f"{name}: ")
            assert "data.on_bad_image: drop" in str(caught.value)
        else:
            np.testing.assert_array_equal(images.fetch(np.array([row])), images_at(root).fetch(np.array([row])))
    images.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_all_bad_images_are_found_with_their_reasons(root, workers):
    damage(root)
    images, advanced = images_at(root, workers=workers), []
    bad = images.find_bad(advanced.append)
    assert [(images.names[item.row], item.name) for item in bad] == [(name, name) for name in sorted(BAD)]
    assert [item.reason for item in bad[:2]] == [
        "not a readable image: of no image format",
        "not a readable image: an empty file",
    ]
    assert "No such file" in bad[2].reason
    assert sum(advanced) == len(images)
    images.close()


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_left_out_rows_shift_nobodys_pixels(root, cache_gb):
    whole = {name: images_at(root).fetch(np.array([row]))[0] for row, name in enumerate(images_at(root).names)}
    damage(root)
    images = images_at(root, cache_gb=cache_gb)
    bad = [item.row for item in images.find_bad()]
    images.select(np.setdiff1d(np.arange(len(images)), bad))
    assert len(images) == 8
    assert set(images.names).isdisjoint(BAD)
    for row, name in enumerate(images.names):
        np.testing.assert_array_equal(images.fetch(np.array([row]))[0], whole[name])
    images.select(np.array([7, 0]))
    np.testing.assert_array_equal(images.fetch(np.array([0]))[0], whole["emu/002.png"])


def test_many_threads_decode_many_pictures_into_their_own_rows(tmp_path):
    root = tmp_path / "pool"
    (root / "x").mkdir(parents=True)
    for number in range(300):  # each of its own grey, more than one chunk of the search for bad images
        draw_picture(0, 0).resize((2, 2)).point(lambda _, n=number: n % 256).save(root / "x" / f"{number:03d}.png")
    images = images_at(root, workers=8)
    assert images.find_bad() == []
    assert images.fetch(np.arange(300))[:, 0, 0, 0].tolist() == [number % 256 for number in range(300)]
    images.close()
