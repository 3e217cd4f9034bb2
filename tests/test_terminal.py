"""Names out of pools may hold what moves a terminal's cursor or hides a line: none of it gets there."""

from __future__ import annotations

import json
import os
import pty
import shutil
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import yaml

from homing.terminal import in_a_line, in_lines
from processes import homing, start

EVIL = "ba\x1b[5m\x1b]0;mine\x07r\n\u202eksid\x9b"
TOLD = r"ba\x1b[5m\x1b]0;mine\x07r\n\u202eksid\x9b"


def test_a_name_stays_in_its_line_and_readable():
    assert in_a_line("é кошка 猫 😀 [x] \\n") == "é кошка 猫 😀 [x] \\n"
    assert in_a_line(EVIL) == TOLD
    assert in_a_line("\udcff\t\u2028") == "\\udcff\\t\\u2028"
    assert in_lines("one\n  two\r\x1b") == "one\n  two\\r\\x1b"


@pytest.fixture(scope="module")
def evil_run(finished_run, tmp_path_factory):
    """The finished run, had its class `bar` and an image had such names; read only."""
    root = tmp_path_factory.mktemp("evil")
    for role in ("source", "target", "test"):
        shutil.copytree(finished_run.parent / role, root / role)
        (root / role / "bar").rename(root / role / EVIL)
    shutil.copytree(finished_run, root / "run")
    for name in ("recipe.yaml", "model/config.json", "results.json"):
        path = root / "run" / name
        text = path.read_text().replace(str(finished_run.parent), str(root))
        path.write_text(text.replace('"bar"', json.dumps(EVIL)))
    tree = yaml.safe_load((root / "run" / "recipe.yaml").read_text())
    tree["training"] |= {"epochs": 0, "steps": None}
    tree["evaluation"] = {"baselines": []}
    (root / "recipe.yaml").write_text(yaml.safe_dump(tree))
    (root / "test" / EVIL / "x\x1b[5m\n.png").write_bytes(b"no picture")
    return root


def _in_a_terminal(name: str, folder: Path, arguments: tuple[object, ...]) -> None:
    os.chdir(folder)
    terminal = os.open(name, os.O_RDWR)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    homing(*arguments)


def on_terminal(root: Path, *arguments: object) -> str:
    """What a command shows a person, stdout and stderr together."""
    ours, theirs = pty.openpty()
    process, shown = start(_in_a_terminal, os.ttyname(theirs), root, arguments), b""
    while ours in wait([ours, process.sentinel]):
        shown += os.read(ours, 65_536)
    process.join()
    for number in (ours, theirs):
        os.close(number)
    return shown.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "run", "target", "--quiet"),
        ("evaluate", "run", "test", "--quiet"),
        ("predict", "run", "target", "test", "--quiet"),
        ("score", "run", "test", "--output", "scores.parquet", "--quiet"),
        ("validate", "recipe.yaml", "--quiet"),
        ("run", "recipe.yaml", "--output", "again"),
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_no_verb_gives_control_characters_of_a_name_to_a_terminal(evil_run, arguments):
    shown = on_terminal(evil_run, *arguments)
    assert "Traceback" not in shown
    assert r"\x1b[5m" in shown
    for raw in ("\x1b[5m", "\x1b]0", "\x07", "\u202e", "\x9b"):
        assert raw not in shown
