"""Imports point one way: cli → flow → {training, evaluation, outputs} → {features, rates, pools, models} → nothing."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import homing

PACKAGE = Path(homing.__file__).parent
# what any layer may import: they know nothing of pools, models or training
GROUND = {
    "errors",
    "launch",
    "measures",
    "progress",
    "interrupts",
    "memory",
    "methods",
    "terminal",
    "threads",
    "session",
    "user_cache",
    "forecast",
}
GROUND_FILES = {
    "outputs.artefact": "the one way to write a file",
    "outputs.checkpoint_files": "what is removed with a checkpoint, whoever removes it",
}
LAYERS = {
    "__main__": 10,
    "cli": 9,
    "compare": 8,
    "flow": 7,
    "endings": 6,
    "scanning": 6,
    "rating": 6,
    "preparing": 5,
    "workable": 4,
    "stored": 4,
    "budget": 6,
    "unpacking": 3,
    "opening": 3,
    "predict": 4,
    "score": 3,
    "validate": 6,
    "quickstart": 2,
    "training": 2,
    "evaluation": 2,
    "outputs": 2,
    "features": 1,
    "rates": 1,
    "pools": 1,
    "models": 1,
    "recipe": 0,
}
SIDEWAYS = {
    ("evaluation", "training"): "a method is a plan of training, and its outcome a fitted model",
    ("outputs", "evaluation"): "results.json holds the metrics of an outcome",
    ("models", "pools"): "what a model is fed are the canvases of a pool, in its order",
    ("features", "models"): "features are what a model makes of pictures",
    ("features", "pools"): "a scan reads the pictures of a pool",
}
# config objects stop at the door: who may read a recipe
READS_RECIPE = {
    "cli": "the door itself",
    "flow": "carries it out",
    "budget": "chooses the steps that fit into its minutes",
    "preparing": "is the flow's first half",
    "workable": "asks whether it can be carried out with its pools",
    "stored": "is a part of it",
    "unpacking": "makes plain values of it",
    "scanning": "is the flow's first half, ahead of it",
    "rating": "is told of tables instead of a recipe, and reads them as its pools",
    "compare": "runs it several times",
    "recipe": "makes it",
    "score": "is given the pool to rate",
    "opening": "reads how a finished run prepared its images",
    "predict": "is given the pool to measure on",
    "validate": "is asked about one",
    "outputs/run_folder.py": "writes it down and compares it",
    "outputs/going_on.py": "compares it with the one that a run began with",
    "outputs/thumbnails.py": "opens the pools that a finished run names",
    "__init__.py": "public names",
}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports_of(path: Path) -> tuple[tuple[str, bool], ...]:
    """(module, whether it is imported when the file is, and not for types alone) of each import."""
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    tree = tree_of(path)
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "homing":
                yield from ((f"homing.{alias.name}", node in tree.body) for alias in node.names)
            else:
                yield str(node.module), node in tree.body


def part_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_downwards(path):
    importer = part_of(path)
    if importer == "__init__":
        return
    assert importer in GROUND or importer in LAYERS, f"{importer}: give it a layer"
    for module, _ in imports_of(path):
        package, _, rest = module.partition(".")
        imported = rest.partition(".")[0]
        if package != "homing" or imported in ("", importer, *GROUND) or rest in GROUND_FILES:
            continue
        assert importer not in GROUND, f"{path}: {importer} imports {module}"
        below = LAYERS[imported] < LAYERS[importer]
        assert below or (importer, imported) in SIDEWAYS, f"{path}: {importer} imports {module}"


@pytest.mark.parametrize("name", GROUND_FILES)
def test_what_anything_may_import_imports_nothing_of_ours_but_errors(name):
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    ours = {module for module, _ in imports_of(path) if module.startswith("homing")}
    assert ours <= {"homing.errors"}


def test_every_exception_is_in_use():
    imports = [(part_of(path), module) for path in FILES for module, _ in imports_of(path)]
    used = {(importer, module.split(".")[1]) for importer, module in imports if module.startswith("homing.")}
    assert set(SIDEWAYS) <= used


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_recipe_is_read_at_the_door_only(path):
    inside = path.relative_to(PACKAGE).as_posix()
    if any(module == "homing.recipe.schema" for module, _ in imports_of(path)):
        assert inside in READS_RECIPE or part_of(path) in READS_RECIPE


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_recipe_is_carried_behind_the_door(path):
    """Nothing in a room asks an object that it was given for its recipe (the report has the text of one)."""
    inside = path.relative_to(PACKAGE).as_posix()
    if part_of(path) in READS_RECIPE or inside in READS_RECIPE or inside.startswith("outputs/report/"):
        return
    tree = tree_of(path)
    asked = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "recipe"]
    assert not asked, f"{path}: .recipe in lines {asked}"


def test_no_files_import_each_other_in_a_circle():
    """Over any number of files, imports for types among them."""
    known = {name_of(path): set(every_import_of(path)) for path in FILES}
    while free := {name for name, found in known.items() if not found & known.keys()}:
        known = {name: found for name, found in known.items() if name not in free}
    # what is left imports, or is imported by, a circle
    while unused := known.keys() - set().union(*known.values()):
        known = {name: found for name, found in known.items() if name not in unused}
    assert not known


def name_of(path: Path) -> str:
    return "homing." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def every_import_of(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("rates", {"accelerate", "datasets", "timm", "torchvision", "PIL", "typer", "pydantic"}),
        ("pools", {"accelerate", "timm", "torchvision", "sklearn", "typer"}),
        ("models", {"datasets", "sklearn", "typer"}),
        ("training", {"datasets", "sklearn", "typer"}),
        ("evaluation", {"accelerate", "datasets", "timm", "typer"}),
    ],
)
def test_a_layer_uses_its_own_libraries_only(folder, forbidden):
    for path in (PACKAGE / folder).rglob("*.py"):
        found = {module.partition(".")[0] for module, _ in imports_of(path)} & forbidden
        assert not found, f"{path}: {found}"


def test_pools_need_torch_for_augmentation_alone():
    imports = {path.name: {module for module, _ in imports_of(path)} for path in (PACKAGE / "pools").glob("*.py")}
    assert {name for name, modules in imports.items() if "torch" in modules} == {"augmentation.py"}


@pytest.mark.parametrize(
    "name",
    [
        "cli/app.py",
        "cli/options.py",
        "cli/runs.py",
        "cli/scanning.py",
        "cli/rating.py",
        "cli/models.py",
        "cli/corpora.py",
        "recipe/schema.py",
        "recipe/conflicts.py",
        "recipe/reading.py",
        "errors.py",
        "methods.py",
        "threads.py",
        "progress.py",
        "launch.py",
        "cli/streams.py",
    ],
)
def test_what_answers_at_once_imports_nothing_heavy(name):
    heavy = {"torch", "timm", "datasets", "accelerate", "sklearn", "pyarrow", "matplotlib", "torchvision"}
    assert not heavy & {module.partition(".")[0] for module, at_once in imports_of(PACKAGE / name) if at_once}


def test_no_part_is_called_utils():
    assert not {"utils.py", "common.py", "helpers.py"} & {path.name for path in FILES}
