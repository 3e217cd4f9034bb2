"""The program itself: its version, and what a shell completes."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from homing.cli.app import app
from homing.terminal import counted

PROGRAM = "import sys; sys.argv[0] = 'homing'; from homing.cli import main; main()"


def program(*arguments, **environment):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_the_version_is_told():
    done = program("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"homing {version('homing')}\n", "")


def test_a_script_for_a_shell_is_printed():
    line = shlex.join([sys.executable, "-c", PROGRAM, "--show-completion"])  # of the shell that it is called from
    done = subprocess.run(["bash", "-c", f"{line}; exit $?"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "complete -o default -F _homing_completion homing" in done.stdout


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("homing ev", {"evaluate"}),
        ("homing run per", {"personalize"}),
        ("homing recipes re", {"reweight"}),
        ("homing compare my.yaml --methods uniform,target_o", {"uniform,target_only"}),
    ],
)
def test_verbs_recipes_and_methods_are_completed(typed, found):
    asked = {"_HOMING_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert set(program(**asked).stdout.split()) == found


VERBS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_has_an_example(verb):
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert f"Example: homing {verb}" in shown.output
    if verb in ("predict", "evaluate"):
        assert "[default: 64]" in shown.output


def test_the_report_of_a_run_over_several_targets_is_that_of_each(finished_run, tmp_path):
    for name in ("acme", "globex"):
        shutil.copytree(finished_run, tmp_path / name)
        (tmp_path / name / "report.html").unlink()
    (tmp_path / "results.json").write_text(json.dumps({"targets": {"acme": {}, "globex": {}}, "pairs": []}))
    shown = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert shown.output.split() == [str(tmp_path / name / "report.html") for name in ("acme", "globex")]
    assert (tmp_path / "globex" / "report.html").stat().st_size > 10_000


def test_numbers_have_their_plurals():
    said = [counted(1, "image"), counted(2_000, "image"), counted(0, "row"), counted(1, "class"), counted(3, "class")]
    assert said == ["1 image", "2,000 images", "0 rows", "1 class", "3 classes"]
