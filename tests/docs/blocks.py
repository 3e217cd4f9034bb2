"""The fenced blocks of a page, and how they are run: in order, in one folder, on small drawn pictures."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from homing import cli
from homing.recipe.reading import shipped_recipes

ROOT = Path(__file__).parents[2]
# small enough for a test; given only where the command does not say otherwise itself
TINY = {
    "model.backbone": "test_resnet",
    "model.weights": "none",
    "model.image_size": "32",
    "training.steps": "1",
    "training.batch_size": "8",
    "training.workers": "0",
    "rates.folds": "2",
    "output.cache": "none",
}


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what stands behind it, its text."""

    language: str
    name: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def commands_of(block: Block) -> list[str]:
    """The commands of a block, without comments; lines joined by && are several."""
    lines = [line.partition(" #")[0].strip() for line in block.text.splitlines()]
    return [part.strip() for line in lines if line and not line.startswith("#") for part in line.split("&&")]


def run_command(command: str) -> None:
    """Run one `homing` command in this process, as small as it goes; fails where its exit code is not 0."""
    words = shlex.split(command)
    place = None
    if ">" in words:
        place = Path(words.pop())
        words.pop()
    assert words[0] == "homing", f"{command}: say in ELSEWHERE what runs it"
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr(sys, "argv", [*words, *_tiny(words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code, f"{command}: exit code {ended.value.code}"
    if place is not None:
        place.write_text(output.getvalue(), encoding="utf-8")


def _tiny(words: list[str]) -> list[str]:
    if words[1] not in ("run", "compare", "validate"):
        return []
    settings = {key: value for key, value in TINY.items() if not any(word.startswith(f"{key}=") for word in words)}
    if words[2] == "reweight":  # it trains nothing
        del settings["training.steps"]
    elif words[1] == "run" and words[2] in shipped_recipes():
        settings["evaluation.baselines"] = "[pooled_oversampled]"
    return [f"{key}={value}" for key, value in settings.items()]
