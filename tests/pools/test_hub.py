"""Datasets of the hub by name, out of the cache that its own library keeps; there is no network here."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from drawn_pools import draw_pool
from homing.errors import DataError, RecipeError
from homing.pools.reading import name_of, read_pool
from homing.recipe.data import PoolSpec
from homing.recipe.hub_names import hub_name
from hub_server import serve_dataset

COMMIT, OLDER = "0123456789abcdef0123456789abcdef01234567", "f" * 40


def pool_at(path, **settings):
    return read_pool(PoolSpec(path=path, **settings))


def refusal(path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        pool_at(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def snapshot(name: str, commit: str, branch: str | None = "main") -> Path:
    """An empty snapshot in the hub's cache, laid out as `hf download` does."""
    repository = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    (repository / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    if branch:
        (repository / "refs" / branch).write_text(commit)
    return repository / "snapshots" / commit


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_pool(tmp_path_factory.mktemp("photos") / "in", {"cat": 2, "dog": 2})


@pytest.fixture(scope="module")
def dataset(photos):
    files = sorted(photos.rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": path.read_bytes(), "path": path.name} for path in files], "label": [0, 0, 1, 1]}
    return datasets.Dataset.from_dict(rows, features)


@pytest.fixture(scope="module")
def published(dataset):
    """A dataset with two splits, of which an older commit is there too."""
    for commit, branch, count in ((OLDER, None, 2), (COMMIT, "main", 4)):
        folder = snapshot("tester/pets", commit, branch) / "data"
        folder.mkdir()
        dataset.select(range(count)).to_parquet(folder / "train-00000-of-00001.parquet")
        dataset.select(range(1)).to_parquet(folder / "test-00000-of-00001.parquet")
    return "tester/pets"


def test_a_split_of_a_dataset_and_its_commit(published, photos):
    pool = pool_at(published, split="train")
    assert pool.labels == ["cat", "cat", "dog", "dog"]
    assert [pool.read(row) for row in range(4)] == [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
    (read_as,) = pool.read_as
    assert read_as.version == COMMIT
    assert "hub dataset tester/pets, split train" in read_as.kind
    assert COMMIT in read_as.kind
    assert pool_at(f"hfds/{published}", split="train", where="label == dog").labels == ["dog", "dog"]


def test_a_revision_is_another_pool(published):
    older, newer = (pool_at(published, split="test", revision=revision) for revision in (OLDER, "main"))
    assert len(pool_at(published, split="train", revision=OLDER)) == 2
    assert older.ids == newer.ids
    assert older.identity() != newer.identity()


def test_splits_are_listed_where_none_or_another_one_is_named(published):
    assert "holds the splits test, train; name one with split" in refusal(published).replace(
        "train, test", "test, train"
    )
    assert "name one with split, found 'dev'" in refusal(published, split="dev")


def test_what_is_not_here_is_told_with_what_to_do(published):
    for path, settings in (("nobody/nothing", {}), (published, {"split": "train", "revision": "v2"})):
        told = refusal(path, **settings)
        assert "no such file or folder" in told
        assert f"`hf download {path} --repo-type dataset`" in told
        assert "save_to_disk" in told
        assert "HF_HUB_OFFLINE" in told


def test_configurations_have_to_be_named(dataset):
    folder = snapshot("tester/many", COMMIT)
    lines = ["---", "configs:"]
    for name in ("small", "large"):
        dataset.to_parquet(folder / f"{name}.parquet")
        lines += [f"- config_name: {name}", f"  data_files: {name}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    told = refusal("tester/many")
    assert "small" in told
    assert "large" in told
    assert len(pool_at("tester/many", config="small")) == 4


def test_images_that_lie_in_the_repository_as_files(photos):
    folder = snapshot("tester/files", COMMIT)
    for path in photos.rglob("*.png"):
        place = folder / "train" / path.relative_to(photos)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    pool = pool_at("tester/files", split="train")
    assert sorted(pool.read(row) for row in range(4)) == sorted(path.read_bytes() for path in photos.rglob("*.png"))
    assert pool.labels == ["cat", "cat", "dog", "dog"]


def test_a_dataset_with_code_is_not_run(tmp_path):
    folder = snapshot("tester/code", COMMIT)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    assert "hub dataset tester/code" in refusal("tester/code")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("user/pets", "user/pets"),
        ("hfds/user/pets", "user/pets"),
        ("hfds/mnist", "mnist"),
        ("pets", None),
        ("./user/pets", None),
        ("/user/pets", None),
        ("../pets", None),
        ("user/pets/train", None),
        ("user/pets.csv", None),
        ("s3://user/pets", None),
        ("here/pets", None),
    ],
)
def test_names_of_the_hub_and_paths(path, name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hub_name(path) == name
    if name:
        assert name_of(PoolSpec(path=path)) == name.rpartition("/")[2]


@pytest.mark.parametrize("path", ["torch/cifar10", "tfds/cifar10", "wds/shards", "hfids/user/pets"])
def test_other_names_of_timm_are_refused_with_what_converts_them(path):
    with pytest.raises(RecipeError, match=r"are not read; .*; then give that path"):
        hub_name(path)


READ = """
import sys
from homing.errors import DataError
from homing.pools.reading import read_pool
from homing.recipe.data import PoolSpec
for path, revision in (("tester/pets", None), ("tester/pets", "gone"), ("tester/none", None)):
    try:
        pool = read_pool(PoolSpec(path=path, revision=revision))
        print(*pool.labels, pool.read_as[0].version)
    except DataError as error:
        print(error)
"""


def test_from_the_hub_itself_and_then_without_it(dataset, tmp_path):
    dataset.to_parquet(tmp_path / "d.parquet")
    server = serve_dataset((tmp_path / "d.parquet").read_bytes())
    address = f"http://127.0.0.1:{server.server_port}"
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}

    def lines():
        found = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, text=True, timeout=120)
        assert found.returncode == 0, found.stderr
        return found.stdout.splitlines()

    rows, no_revision, no_dataset = lines()
    server.shutdown()
    server.server_close()
    assert rows == f"cat cat dog dog {COMMIT}"
    assert "has no revision 'gone'" in no_revision
    assert "no dataset of that name on the hub" in no_dataset
    again, other, missing = lines()
    assert again == rows
    assert f"only the commit {COMMIT} is in the cache, not the revision 'gone'" in other
    assert "neither reachable nor in the cache" in missing
