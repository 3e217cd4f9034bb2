import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drawn_pools import draw_pool
from homing import errors
from homing.cli import streams
from homing.interrupts import SIGNALS
from homing.outputs.artefact import json_line
from processes import called, group_of


def homing(*arguments, cwd, **environment) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "homing", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )


def refusal(done, exit_code) -> str:
    """What a refused command says: one message on stderr, nothing on stdout, no traceback."""
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def tree_of(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def root(tmp_path):
    for seed, role in enumerate(("source", "target", "test")):
        draw_pool(tmp_path / role, {"cat": 6, "dog": 6}, seed=seed)
    tree = {
        "name": "cats, dogs/../x",
        "data": {role: {"path": role} for role in ("source", "target", "test")},
        "model": {"backbone": "test_resnet", "weights": "none", "image_size": 32},
        "rates": {"method": "uniform"},
        "training": {"steps": 1, "workers": 0, "batch_size": 4},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Usage"),
        (("fly",), "No such command 'fly'"),
        (("run",), "Missing argument 'RECIPE'"),
        (("run", "recipe.yaml", "--fast"), "No such option"),
        (("run", "missing.yaml"), "missing.yaml: cannot be read (No such file or directory)"),
        (("run", "."), "cannot be read (Is a directory)"),
        (("run", "recipe.yaml", "training.epochz=1"), "did you mean epochs?"),
        (("run", "recipe.yaml", "other.yaml"), "write key.path=value"),
        (("run", "recipe.yaml", "--resume", "--overwrite"), "--resume and --overwrite exclude each other"),
        (("run", "recipe.yaml", "--output", "recipe.yaml"), "recipe.yaml: is a file"),
        (("run", "recipe.yaml", "--output", "source"), "source: is the pool"),
        (("validate", "recipe.yaml", "seed=x"), "1 mistake"),
        (("predict", "source"), "Missing argument 'IMAGE...'"),
        (("predict", "source", "test", "--output", "recipe.yaml"), "recipe.yaml: exists already"),
        (("predict", "source", "test", "--output", "gone/x.csv"), "gone: no such folder"),
        (("export", "source", "--output", "target"), "target: exists already"),
        (("recipes", "nothing"), "there is no shipped recipe 'nothing'; there are "),
    ],
)
def test_bad_usage_exits_2_with_one_message_and_writes_nothing(root, arguments, told):
    before = tree_of(root)
    done = homing(*arguments, cwd=root)
    assert done.returncode == 2
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert tree_of(root) == before


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.source.path=nowhere", "nowhere: no such file or folder"),
        ("data.target.label_column=kind", "there is no column 'kind'"),
        ("data.max_pixels=500", "24 x 24 pixels, more than data.max_pixels (500)"),
    ],
)
def test_bad_data_exits_3_before_anything_is_trained(root, override, told):
    done = called("validate", "recipe.yaml", override, "--quiet", cwd=root)
    assert (done.returncode, done.stderr) == (3, "")
    assert told in done.stdout


@pytest.mark.parametrize("command", [("report",), ("evaluate", "test"), ("export", "--output", "out")])
def test_a_folder_that_is_no_run_exits_3(root, command):
    name, *rest = command
    assert "source: holds no recipe.yaml, so it is no run" in refusal(called(name, "source", *rest, cwd=root), 3)


def test_a_run_that_bad_data_stops_leaves_no_folder(root):
    before = tree_of(root)
    found = refusal(called("run", "recipe.yaml", "data.max_pixels=500", "--output", "out", "--quiet", cwd=root), 3)
    assert "36 of 36 images cannot be read" in found
    assert tree_of(root) == before


def test_validate_exits_3_with_every_finding_and_0_without(root):
    (root / "source/cat/000.png").write_bytes(b"text")
    (root / "test/dog/003.png").write_bytes(b"")
    done = called("validate", "recipe.yaml", "--quiet", cwd=root)
    assert (done.returncode, done.stderr) == (3, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("error")] == [
        "error: source cat/000.png: not a readable image: of no image format",
        "error: test dog/003.png: not a readable image: an empty file",
    ]
    done = called("validate", "recipe.yaml", "data.on_bad_image=drop", "--json", cwd=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["valid"] is True
    done = called("validate", "recipe.yaml", "--json", cwd=root)
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["errors"]) == 2


def test_a_run_prints_one_json_object_and_its_folder_is_not_overwritten_unasked(root):
    done = homing("run", "recipe.yaml", "--json", cwd=root)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    (folder,) = (root / "runs").iterdir()  # a name is never a way out of the folder of runs
    assert (root / results["folder"]).resolve() == folder
    assert results["method"] == "uniform"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "already holds files" in refusal(called("run", "recipe.yaml", cwd=root), 2)
    other = refusal(called("run", "recipe.yaml", "seed=1", "--resume", cwd=root), 5)
    assert "was begun with another recipe" in other
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_shipped_recipes_are_listed_and_printed(tmp_path):
    listed = homing("recipes", cwd=tmp_path)
    assert listed.returncode == 0
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert "quickstart" in names
    for name in names:
        printed = homing("recipes", name, cwd=tmp_path)
        assert yaml.safe_load(printed.stdout)["data"]


def test_other_processes_than_the_first_say_nothing(root):
    done = homing("validate", "recipe.yaml", "seed=x", cwd=root, **group_of(2)[1])
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m homing recipes quickstart | head -c 5"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_an_interrupt_at_the_start_exits_130_without_a_traceback(root):
    code = "import sys, signal, os\nfrom homing import cli\nfrom homing.cli import runs\n"
    code += "sys.argv = ['homing', 'validate', 'recipe.yaml']\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
    code += f"runs.read_recipe = lambda *_: os.kill(os.getpid(), {int(signal.SIGINT)})\ncli.main()\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)


def test_every_exit_code_is_explained():
    def kinds(kind):
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    rows = [
        line.split("|")[1]
        for line in (Path(__file__).parents[1] / "docs" / "faq.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    told = {int(code) for row in rows for code in row.split(",") if code.strip().isdigit()}
    codes = {kind.exit_code for kind in kinds(errors.HomingError)} | {0} | {128 + number for number in SIGNALS}
    assert told == codes
    assert {errors.LostProcess.exit_code, streams.ReaderLeft.exit_code} == {75, 141}


def test_json_is_ascii_and_by_the_standard():
    line = json_line({"name": "é\udcff", "nll": float("nan"), "rows": [float("inf"), 1.5]})
    assert line.isascii()
    assert json.loads(line) == {"name": "é\udcff", "nll": None, "rows": [None, 1.5]}
