import pytest

from drawn_pools import draw_pool
from homing.errors import CheckpointError, RecipeError
from homing.outputs.run_folder import discard_stump, open_run_folder
from homing.outputs.table import results_table
from homing.outputs.thumbnails import thumbnails_of
from homing.recipe.reading import parse_recipe

SMALL = "data: {source: {path: /a}, target: {path: /b}}\ntraining: {epochs: 1}\n"
RECIPE = parse_recipe(SMALL)


def opened(folder, recipe=RECIPE, resume=False, overwrite=False):
    open_run_folder(folder, recipe, resume=resume, overwrite=overwrite)
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_begins_with_the_resolved_recipe(tmp_path):
    assert opened(tmp_path / "a" / "b") == ["recipe.yaml"]
    assert (tmp_path / "a" / "b" / "recipe.yaml").read_text() == RECIPE.to_yaml()
    assert opened(tmp_path / "c", resume=True) == ["recipe.yaml"]


def test_a_folder_with_anything_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    for resume in (False, True):
        with pytest.raises(RecipeError, match="already holds files"):
            opened(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder, told in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "x", "cannot be written to")):
        with pytest.raises(RecipeError, match=told):
            opened(folder)
    with pytest.raises(RecipeError, match="exclude each other"):
        opened(tmp_path / "new", resume=True, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_resuming_takes_the_same_recipe_only(tmp_path):
    opened(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert opened(tmp_path, resume=True) == ["checkpoints", "recipe.yaml"]
    with pytest.raises(CheckpointError, match="another recipe"):
        opened(tmp_path, parse_recipe(SMALL, ["seed=1"]), resume=True)
    (tmp_path / "recipe.yaml").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="another recipe"):
        opened(tmp_path, resume=True)


def test_overwriting_removes_what_a_run_leaves_and_nothing_else(tmp_path):
    opened(tmp_path)
    for name in ("results.json", "metrics.jsonl", "rates.parquet", "report.html", "notes.txt"):
        (tmp_path / name).touch()
    for name in ("model", "checkpoints/step-000001", "data"):
        (tmp_path / name).mkdir(parents=True)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    (tmp_path / "model").rmdir()
    (tmp_path / "model").symlink_to(elsewhere)
    assert opened(tmp_path, overwrite=True) == ["data", "notes.txt", "recipe.yaml"]
    assert (elsewhere / "mine").exists()


def test_only_a_folder_that_holds_nothing_but_the_recipe_is_discarded(tmp_path):
    opened(tmp_path / "stump")
    opened(tmp_path / "begun")
    (tmp_path / "begun" / "metrics.jsonl").touch()
    for name in ("stump", "begun", "nowhere"):
        discard_stump(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_thumbnails_are_found_by_id_and_missing_ones_are_none(tmp_path):
    root = draw_pool(tmp_path / "pool", {"cat": 2, "dog": 1})
    pictures = thumbnails_of(parse_recipe(SMALL, [f"data.source.path={root}"]))
    (root / "dog" / "000.png").unlink()
    assert pictures(["cat/001.png", "dog/000.png", "emu/0.png"]) == [(root / "cat/001.png").read_bytes(), None, None]
    assert thumbnails_of(parse_recipe(SMALL, [f"data.source.path={tmp_path / 'gone'}"]))(["x"]) == [None]


def test_the_table_sorts_by_accuracy_and_marks_the_run():
    row = {"accuracy_interval": [0.1, 0.9], "nll": 1.25}
    results = {
        "method": "hierarchical",
        "headline": "test",
        "target": {"accuracy": 0.8, "num_test": 1_447, **row},
        "baselines": {"oracle": {"accuracy": 0.9, **row}, "target_only": {"accuracy": 0.5, **row}},
    }
    head, *rows = results_table(results).splitlines()
    assert "on 1,447 test images" in head
    assert [line[:2] + line[2:].split("  ")[0] for line in rows] == [
        "  target only",
        "→ homing",
        "  oracle (true rates)",
    ]
    assert "[10.0%, 90.0%]" in rows[1]
    assert "cross-validated" in results_table(results | {"headline": "folds"})
