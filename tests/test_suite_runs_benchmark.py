"""The benchmark that runs the suite many times tells green from red, and by name what failed."""

from __future__ import annotations

import subprocess

from suite_runs import commit_of, run_suite, standing

TESTS = "def test_sound(): pass\n\ndef test_broken(): assert {}\n"


def _commit(root, text):
    (root / "test_it.py").write_text(text)
    subprocess.run(["git", "-C", root, "add", "."], check=True)
    who = ["-c", "user.name=n", "-c", "user.email=n@localhost"]
    subprocess.run(["git", "-C", root, *who, "commit", "--quiet", "--message", "m"], check=True)
    return commit_of(root)


def test_a_run_is_of_a_commit_and_names_what_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take seconds to import
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)  # options of a plugin end what has no plugins
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    red = _commit(tmp_path, TESTS.format(False))
    green = _commit(tmp_path, TESTS.format(True))
    (tmp_path / "test_it.py").write_text("what is not committed is not run")
    rows = [run_suite(tmp_path, commit, busy) for commit, busy in ((green, 0), (red, 0), (green, 1))]
    assert [(row["passed"], row["failed"], row["exit"]) for row in rows] == [(2, 0, 0), (1, 1, 1), (2, 0, 0)]
    assert rows[1]["names"] == ["test_it::test_broken"]
    assert rows[2]["busy"] == 1
    assert standing(rows).startswith("green in a row: 1 of 3 runs (1 beside busy processes)")
