"""Every command and snippet of the README and of docs/ runs as it is printed."""

import json
import pkgutil
import re
import shutil

import pytest
from blocks import ROOT, blocks_of, commands_of, run_command

from homing.recipe.reading import read_recipe, shipped_recipes
from small_run import draw_folder

# what is run by something else than this test, word for word
ELSEWHERE = {
    "pip install -e '.[demo]'": ".ci/run installs the package",
    "pip install -e '.[test]'": ".ci/run installs the package",
    "pytest": ".ci/run",
    "homing quickstart": ".ci/run, with --short; the whole of it is benchmarks/quickstart_seeds.py",
}
# pages with tests of their own
TOLD_ELSEWHERE = {
    "alignments.md": "test_alignments_page.py",
    "corpora.md": "test_corpora_page.py",
    "sampler.md": "test_sampler_page.py",
    "scale.md": "test_scale_page.py",
}
STORIES = ["README.md", "docs/tutorial.md", "docs/cookbook.md", "docs/python.md", "docs/data.md"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folders that the pages speak of: `pool`, `photos`, `photos-test`, `new`; `mine` and `mine-test`."""
    root = tmp_path_factory.mktemp("pages")
    draw_folder(root / "pool", 8, seed=1, share_dark=0.25)
    draw_folder(root / "photos", 4, seed=2, share_dark=1)
    draw_folder(root / "photos-test", 3, seed=3, share_dark=1)
    draw_folder(root / "new", 1, seed=4, share_dark=1)
    for name, copy in (("photos", "mine"), ("photos-test", "mine-test")):
        shutil.copytree(root / name, root / copy)
    return root


def namespace_of(page):
    """What a page's snippets take for granted: the README's loop is that of docs/alignments.md."""
    names = {"__name__": "page"}
    if page == "README.md":
        setup = next(block.text for block in blocks_of(ROOT / "docs/alignments.md") if block.name == "setup")
        exec(setup, names)
        exec("direction = {name: value.detach().clone() for name, value in model.named_parameters()}", names)
        exec("freeze_batch_norm(model.train())", names)
    return names


@pytest.mark.parametrize("page", STORIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what writes ONNX and event files
def test_a_page_runs_from_top_to_bottom(page, pictures, tmp_path, monkeypatch):
    for folder in pictures.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    names = namespace_of(page)
    for block in blocks_of(ROOT / page):
        if block.language == "bash":
            for command in commands_of(block):
                if command not in ELSEWHERE:
                    run_command(command)
        elif block.language == "yaml":
            (tmp_path / block.name).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, f"{page}, a block", "exec"), names)
        else:
            assert block.language in ("text", "mermaid"), f"{page}: a block of the kind {block.language}"


def test_every_page_with_something_to_run_is_run():
    for page in sorted((ROOT / "docs").glob("*.md")):
        if any(block.language in ("bash", "python", "yaml") for block in blocks_of(page)):
            assert f"docs/{page.name}" in STORIES or page.name in TOLD_ELSEWHERE, f"{page.name}: add it to STORIES"


def test_what_is_run_elsewhere_still_stands_on_a_page():
    printed = {
        command
        for page in STORIES
        for block in blocks_of(ROOT / page)
        if block.language == "bash"
        for command in commands_of(block)
    }
    assert set(ELSEWHERE) <= printed


def test_the_cookbook_has_a_section_for_each_shipped_recipe_and_its_command():
    text = (ROOT / "docs/cookbook.md").read_text()
    sections = text.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections[:-1]] == sorted(
        shipped_recipes(), key=lambda name: text.index(f"\n## {name}\n")
    )
    for name, path in shipped_recipes().items():
        read_recipe(path)
        assert f"homing {'run ' if name != 'quickstart' else ''}{name}" in text


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_names_and_scripts_that_pages_speak_of_are_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`(homing\.[a-z_]+(?:\.\w+)*)", text):
            pkgutil.resolve_name(name)
        for path in re.findall(r"\b(?:benchmarks|docs|tests|recipes|src)/[\w./-]+\.(?:py|md|yaml|png)\b", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_recipe_reference_is_in_step_with_the_schema(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import recipe_reference

    written = recipe_reference.PAGE.read_text(encoding="utf-8")
    assert written == recipe_reference.page(), "run: python docs/recipe_reference.py"


def test_the_figures_are_drawn_from_a_run_whose_truth_is_known(finished_run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import figures

    run, source = tmp_path / "run", tmp_path / "source"
    shutil.copytree(finished_run, run)
    source.mkdir()
    ids = [path.relative_to(finished_run.parent / "source") for path in (finished_run.parent / "source").rglob("*.png")]
    rows = [f"{name.as_posix()},{number % 2},{number // 2 % 2}" for number, name in enumerate(ids)]
    (source / "metadata.csv").write_text("\n".join(["file_name,matches,clean", *rows]))
    (run / "recipe.yaml").write_text(json.dumps({"data": {"source": {"path": str(source)}}}))
    monkeypatch.setattr("sys.argv", ["figures.py", str(run), str(tmp_path / "out")])
    figures.main()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"how-descriptors.png", "how-rates.png"}
