"""The program itself: its version, and what a shell completes."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

PROGRAM = "import sys; sys.argv[0] = 'homing'; from homing.cli import main; main()"


def program(*arguments, **environment):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_the_version_is_told():
    done = program("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"homing {version('homing')}\n", "")


def test_a_script_for_a_shell_is_printed():
    done = program("--show-completion", "bash")
    assert done.returncode == 0
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
