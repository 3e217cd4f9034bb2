import hashlib
import resource
import signal

import pytest

from drawn_pools import draw_pool
from homing.errors import CheckpointError, RecipeError
from homing.outputs import lock as lock_module
from homing.outputs.artefact import host
from homing.outputs.lock import FolderLock, folder_lock
from homing.outputs.ownership import (
    GENERATOR,
    LOCK,
    MARK,
    check_pools,
    mark_as_ours,
    marked,
    note,
    note_pools,
    remove_checkpoints,
)
from homing.outputs.pool_paths import check_cache, check_output
from homing.outputs.run_folder import discard_stump, open_run_folder
from homing.outputs.table import results_table
from homing.outputs.thumbnails import thumbnails_of
from homing.progress import Progress
from homing.recipe.reading import parse_recipe, read_recipe
from homing.scanning import scan_recipe
from processes import ended, start

SMALL = "data: {source: {path: /a}, target: {path: /b}}\ntraining: {epochs: 1}\n"
RECIPE = parse_recipe(SMALL)


def opened(folder, recipe=RECIPE, resume=False, overwrite=False):
    open_run_folder(folder, recipe, resume=resume, overwrite=overwrite)
    return sorted(path.name for path in folder.iterdir() if path.name != MARK)


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


def test_a_run_of_another_version_says_so_and_that_its_recipe_can_be_run_anew(tmp_path):
    opened(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    began = tmp_path / "recipe.yaml"
    began.write_text(RECIPE.to_yaml().replace("  average_last: null\n", ""))  # read as this version reads it
    mark_as_ours(tmp_path, hashlib.sha256(began.read_bytes()).hexdigest())
    for recipe in (read_recipe(began), parse_recipe(SMALL, ["seed=1"])):
        with pytest.raises(CheckpointError, match=r"another version of homing, .* --output OTHER`") as told:
            opened(tmp_path, recipe, resume=True)
        assert "--resume" not in str(told.value)
    (tmp_path / "results.json").write_text("{}")  # what is finished counts, and takes no methods by other defaults
    opened(tmp_path, read_recipe(began), resume=True)
    with pytest.raises(CheckpointError, match="another version of homing"):
        opened(tmp_path, parse_recipe(SMALL, ["evaluation.baselines=[pooled]"]), resume=True)
    assert "recipe.yaml" in opened(tmp_path, overwrite=True)


@pytest.mark.parametrize("finished", [False, True])
def test_a_recipe_that_was_edited_by_hand_is_told_and_comments_are_not(tmp_path, finished):
    opened(tmp_path)
    began = tmp_path / "recipe.yaml"
    if finished:
        (tmp_path / "results.json").write_text("{}")
    began.write_text(f"# mine\n{RECIPE.to_yaml()}")
    opened(tmp_path, resume=True)
    began.write_text(RECIPE.to_yaml().replace("seed: 0", "seed: 5"))
    more = parse_recipe(SMALL, ["seed=5", "evaluation.baselines=[pooled]"])
    for recipe in (RECIPE, read_recipe(began), more):
        with pytest.raises(CheckpointError, match=r"recipe.yaml: was edited since .* --output OTHER`"):
            opened(tmp_path, recipe, resume=True)
    assert "seed: 5" in began.read_text()


def test_a_kill_while_a_changed_recipe_is_noted_costs_nothing(tmp_path, monkeypatch):
    opened(tmp_path)
    began, more = tmp_path / "recipe.yaml", parse_recipe(SMALL, ["evaluation.baselines=[pooled]"])
    before = [began.read_bytes(), (tmp_path / MARK).read_bytes()]
    opened(tmp_path, more, resume=True)
    after = [began.read_bytes(), (tmp_path / MARK).read_bytes()]
    note(tmp_path, recipe_sha256=RECIPE.sha256())  # the last write is missing
    opened(tmp_path, more, resume=True)
    began.write_bytes(before[0])  # the last two are
    for recipe in (RECIPE, more):
        opened(tmp_path, recipe, resume=True)
    assert (began.read_bytes(), marked(tmp_path)["recipe_sha256"]) == (after[0], more.sha256())


def test_what_a_kill_or_a_full_disk_leaves_before_the_recipe_is_a_new_folder(tmp_path):
    for resume in (False, True):
        mark_as_ours(tmp_path / "run", RECIPE.sha256()) if resume else opened(tmp_path / "run")
        (tmp_path / "run" / "recipe.yaml").unlink(missing_ok=True)
        assert opened(tmp_path / "run", resume=resume) == ["recipe.yaml"]
    (tmp_path / "run" / "recipe.yaml").unlink()
    (tmp_path / "run" / "rates.parquet").touch()
    with pytest.raises(RecipeError, match=r"already holds files, and no recipe\.yaml that --resume could go on with"):
        opened(tmp_path / "run", resume=True)


def test_resuming_takes_the_same_recipe_only(tmp_path):
    opened(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert opened(tmp_path, resume=True) == ["checkpoints", "recipe.yaml"]
    with pytest.raises(CheckpointError, match="another recipe"):
        opened(tmp_path, parse_recipe(SMALL, ["seed=1"]), resume=True)
    for damage, told in ((b"\xff", "UTF-8"), (RECIPE.to_yaml().encode() + b"new: 1\n", "new: unknown key")):
        (tmp_path / "recipe.yaml").write_bytes(damage)
        with pytest.raises(CheckpointError, match=rf"recipe.yaml: is no recipe of this version \(.*{told}"):
            opened(tmp_path, resume=True)


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(GENERATOR if name == "report.html" else name.encode())


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    opened(run)
    make(run, "results.json", "metrics.jsonl", "rates.parquet", "report.html", "model/config.json")
    make(run, "models/pooled/model.safetensors", "checkpoints/pooled-fold-1/step-000004/manifest.json")
    make(run, "checkpoints/rates/01ab/step-000000/plan.safetensors", "checkpoints/.step-000009.1.new.tmp/state.json")
    make(run, "trackers/small/events.out.tfevents.1")
    foreign = ["notes.txt", "data/a.png", "model/precious.txt", "checkpoints/week.pt", "checkpoints/mine/a.json"]
    foreign += ["checkpoints/step-000004/week.pt", "models/notes.txt", "trackers/mine.csv"]
    foreign += ["models/mine/model.safetensors", "models/pooled/notes.txt"]
    make(run, *foreign, "checkpoints/step-000004/manifest.json")
    make(elsewhere, "scorer.json")
    (run / "scorer").symlink_to(elsewhere)
    opened(run, overwrite=True)
    assert names_in(run) == sorted([MARK, "recipe.yaml", *foreign])
    assert names_in(elsewhere) == ["scorer.json"]


def test_a_folder_that_is_no_run_is_not_overwritten(tmp_path):
    make(tmp_path, "model/precious.txt", "checkpoints/week.pt", "report.html", "recipe.yaml", "results.json")
    before = names_in(tmp_path)
    with pytest.raises(RecipeError, match="no run of homing"):
        opened(tmp_path, overwrite=True)
    assert names_in(tmp_path) == before


def test_a_run_of_an_earlier_version_can_be_overwritten(tmp_path):
    (tmp_path / "results.json").write_text('{"recipe_sha256": "ab", "rates": {}, "cost": {}}')
    assert opened(tmp_path, overwrite=True) == ["recipe.yaml"]


@pytest.mark.parametrize("results", ['{"targets": ["cats"], "accuracy": 0.9}', '{"recipe_sha256": "ab"}'])
def test_results_of_another_program_make_no_folder_a_run(tmp_path, results):
    make(tmp_path, "metrics.jsonl", "model/config.json")
    (tmp_path / "results.json").write_text(results)
    with pytest.raises(RecipeError, match="no run of homing"):
        opened(tmp_path, overwrite=True)
    assert names_in(tmp_path) == sorted(["metrics.jsonl", "model/config.json", "results.json"])


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}])
def test_a_page_of_somebody_else_is_not_replaced(tmp_path, how):
    opened(tmp_path)
    (tmp_path / "report.html").write_text("<title>mine</title>")
    with pytest.raises(RecipeError, match="not written by homing"):
        opened(tmp_path, **how)
    assert (tmp_path / "report.html").read_text() == "<title>mine</title>"


@pytest.mark.parametrize(
    "output", ["pools/source", "pools/source/new", "pools", "pools/link", "pools/source/../source/cat"]
)
def test_an_output_that_touches_a_pool_is_refused(tmp_path, output):
    make(tmp_path / "pools" / "source", "cat/1.png")
    (tmp_path / "pools" / "link").symlink_to("source")
    recipe = parse_recipe(SMALL, [f"data.source.path={tmp_path / 'pools' / 'source'}"])
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(RecipeError, match=r"(is|lies in|holds) the pool .*apart from all pools"):
            opened(tmp_path / output, recipe, **how)
    assert names_in(tmp_path / "pools" / "source") == ["cat/1.png"]


def test_features_are_kept_in_no_pool(tmp_path):
    make(tmp_path / "pools" / "source", "cat/1.png")
    for cache in ("pools/source", "pools/source/cache"):
        changes = [f"data.source.path={tmp_path / 'pools' / 'source'}", f"output.cache={tmp_path / cache}"]
        recipe = parse_recipe(SMALL, changes)
        for use in (
            lambda recipe=recipe: opened(tmp_path / "run", recipe),
            lambda recipe=recipe: scan_recipe(recipe, Progress(quiet=True)),
        ):
            with pytest.raises(RecipeError, match=r"output\.cache: .* (is|lies in) the pool .*apart from all pools"):
                use()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pools"]
    check_cache(str(tmp_path / "pools"), [tmp_path / "pools" / "source"])


def test_pools_elsewhere_on_a_hub_or_of_the_run_itself_are_no_hindrance(tmp_path):
    make(tmp_path / "source", "cat/1.png")
    make(tmp_path / "run" / "data" / "source", "cat/1.png")
    check_output(tmp_path / "run", [tmp_path / "source", "user/dataset", tmp_path / "run" / "data" / "source"])
    check_output(tmp_path / "source-2", [tmp_path / "source"])


def test_all_checkpoints_but_the_newest_of_the_run_itself_served_until_it_was_complete(tmp_path):
    make(tmp_path, "step-000004/manifest.json", "pooled/step-000004/state.json", "mine/step-000004/week.pt", "week.pt")
    remove_checkpoints(tmp_path, keep_newest=True)
    assert names_in(tmp_path) == ["mine/step-000004/week.pt", "step-000004/manifest.json", "week.pt"]
    assert not (tmp_path / "pooled").exists()


def test_a_finished_part_counts_for_the_pools_that_it_saw_alone(tmp_path):
    opened(tmp_path)
    check_pools(tmp_path, {"source": "a", "test": "b"})  # nothing was noted: an earlier version
    note_pools(tmp_path, {"source": "a", "test": "b"}, {"source": "d"})
    check_pools(tmp_path, {"source": "a", "test": "b"})
    for changed in ({"source": "a", "test": "c"}, {"source": "a"}):
        with pytest.raises(CheckpointError, match="the test changed"):
            check_pools(tmp_path, changed)
    assert opened(tmp_path, overwrite=True) == ["recipe.yaml"]
    check_pools(tmp_path, {"source": "a", "test": "c"})


def _hold(folder, ready):
    lock = FolderLock()
    lock.take(folder)
    ready.touch()
    signal.pause()


def held_by_another(folder, ready):
    process = start(_hold, folder, ready)
    while not ready.exists():
        assert not ended(process, 0.01)
    return process


def test_a_second_process_in_a_run_folder_is_refused_and_learns_who_is_there(tmp_path):
    opened(tmp_path / "run")
    process = held_by_another(tmp_path / "run", tmp_path / "ready")
    with folder_lock() as lock:
        for attempt in (lambda: lock.take(tmp_path / "run"), lambda: opened(tmp_path / "run", overwrite=True)):
            with pytest.raises(RecipeError, match=f"process {process.pid} on .* is at work in it"):
                attempt()
        process.kill()
        process.join()
        lock.take(tmp_path / "run")  # what a dead process left is taken over
        assert (tmp_path / "run" / LOCK).exists()
        opened(tmp_path / "run", resume=True)  # by the process that has it
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_disk_that_is_full_takes_no_lock_that_outlives_the_attempt(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # no file may grow
    try:
        with folder_lock() as lock, pytest.raises(RecipeError, match=r"run: cannot be written to \(.*\); give another"):
            lock.take(tmp_path / "run", makes=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "run").iterdir()) == []
    with folder_lock() as lock:
        lock.take(tmp_path / "run")  # there is room again


def test_a_lock_on_a_file_system_without_locks_counts_while_its_process_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "fcntl", None)
    process = held_by_another(tmp_path, tmp_path / "ready")
    with folder_lock() as lock:
        with pytest.raises(RecipeError, match=f"process {process.pid}"):
            lock.take(tmp_path)
        process.kill()
        process.join()
        lock.take(tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_a_folder_with_nothing_but_what_a_kill_left_is_empty(tmp_path):
    make(tmp_path, f".recipe.yaml.homing-{host()}-999999999-0.tmp", LOCK)
    assert opened(tmp_path) == ["recipe.yaml"]


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
    head, *rows, _, verdict = results_table(results).splitlines()
    assert "on 1,447 test images" in head
    assert [line[:2] + line[2:].split("  ")[0] for line in rows] == [
        "  Target only",
        "→ homing",
        "  Oracle (true rates)",
    ]
    assert "80.0 %   [10.0, 90.0]" in rows[1]
    assert verdict.startswith("Not proven: +30.0 points")
    assert "cross-validated" in results_table(results | {"headline": "folds"})
