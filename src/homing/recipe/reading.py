"""YAML and `key.path=value` overrides → `Recipe`, with every mistake reported at once and where it stands."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from homing.errors import DataError, RecipeError
from homing.recipe.conflicts import LENGTHS, conflicts, is_split
from homing.recipe.hub_names import PREFIX, hub_name
from homing.recipe.schema import Recipe
from homing.recipe.urls import checked_url, is_url
from homing.recipe.wording import shown, wording
from homing.recipe.yaml_text import TEXT, Loader, is_plain

KeyPath = tuple[str | int, ...]
_MAX_BYTES = 100_000
_NAMED = {("data", "target"), ("data", "test"), ("data", "unlabelled")}  # sections that may hold pools by name


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file, apply overrides, check everything, and make its paths absolute.

    Args:
        path: A YAML file.
        overrides: Texts such as `training.epochs=1` or `data.source.0.path=photos`.

    Returns:
        The resolved recipe; `~` and `$NAME` in its paths are filled in, relative paths start at the working folder.

    Raises:
        RecipeError: One message with all mistakes, each with file and line, key path and what is allowed.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError(f"{path}: larger than {_MAX_BYTES:,} bytes, not a recipe")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); give a YAML file, `homing recipes` lists those shipped"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); a recipe is a YAML file") from error
    return parse_recipe(text, overrides, name=str(path))


def recipe_of_run(run: Path) -> Recipe:
    """The recipe that a run wrote into its folder.

    Raises:
        DataError: The folder holds none.
        RecipeError: It cannot be read.
    """
    if not (run / "recipe.yaml").is_file():
        raise DataError(f"{run}: holds no recipe.yaml, so it is no run; give a folder that `homing run` wrote")
    return read_recipe(run / "recipe.yaml")


def parse_recipe(text: str, overrides: Iterable[str] = (), name: str = "recipe") -> Recipe:
    """Like `read_recipe`, from a text. `name` stands for the file in messages."""
    tree, lines = _load(text, name)
    if not isinstance(tree, dict):
        raise RecipeError(f"{name}:1: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    origin = {key: f"{name}:{line}" for key, line in lines.items()}
    for override in overrides:
        key, value = _parse_override(override)
        _put(tree, key, value, override)
        origin[key] = f"override '{override}'"
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(_report(error, tree, origin, name)) from None
    except RecursionError:
        raise RecipeError(f"{name}: nested too deeply to be a recipe") from None
    return _resolve_paths(recipe)


def as_recipe(given: Recipe | str | Path | Mapping[str, Any]) -> Recipe:
    """A recipe as it is, by its path, by the name of a shipped one, or by its tree.

    Raises:
        RecipeError: It cannot be read, or holds mistakes.
    """
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Mapping):
        try:
            text = yaml.safe_dump(_plain(given), sort_keys=False, allow_unicode=True)
        except yaml.YAMLError as error:
            raise RecipeError(f"the recipe holds what YAML cannot: {str(error).splitlines()[0]}") from None
        return parse_recipe(text)
    if not isinstance(given, str | Path):
        raise RecipeError(f"the recipe is {type(given).__name__}; give a Recipe, the path of one, or a dict")
    if isinstance(given, str) and "\n" in given:
        raise RecipeError("the recipe is a text of several lines; give a path, or homing.parse_recipe(text)")
    shipped = shipped_recipes()
    return read_recipe(shipped[str(given)] if str(given) in shipped and not Path(given).exists() else given)


def _plain(tree: Any) -> Any:
    """A tree of what YAML knows: paths as texts, tuples as lists."""
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return str(tree) if isinstance(tree, Path) else tree


def _load(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    """What a YAML text says, and the line (from 1) of each key."""
    lines: dict[KeyPath, int] = {}
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _check_node(node, (), lines, name, set())
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except RecipeError:
        raise
    except RecursionError:
        raise RecipeError(f"{name}: not valid YAML: nested too deeply") from None
    except Exception as error:  # of many kinds, where a tag says what a value is not
        reason = str(error).splitlines()[0] if isinstance(error, ValueError | yaml.YAMLError) else "a tag does not fit"
        raise RecipeError(f"{name}: not valid YAML: {reason}") from None


def _check_node(node: yaml.Node, key: KeyPath, lines: dict[KeyPath, int], name: str, seen: set[int]) -> None:
    """Note the line of each key; refuse doubled keys, and aliases (which can grow without bound).

    The values of texts are taken as they are typed, be it 007 or 1.10.
    """
    if id(node) in seen:
        raise RecipeError(f"{name}:{node.start_mark.line + 1}: YAML aliases are not allowed, write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            child = (*key, str(key_node.value))
            if child in lines:
                raise RecipeError(f"{name}:{key_node.start_mark.line + 1}: {_dotted(child)} is given twice")
            lines[child] = key_node.start_mark.line + 1
            if is_plain(value_node) and _is_text(child):
                value_node.tag = TEXT
            _check_node(value_node, child, lines, name, seen)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[(*key, position)] = item.start_mark.line + 1
            _check_node(item, (*key, position), lines, name, seen)


def _parse_override(text: str) -> tuple[KeyPath, Any]:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"override '{text}': write key.path=value, for example training.epochs=1")
    place = tuple(int(part) if part.isascii() and part.isdigit() and len(part) < 10 else part for part in parts)
    if _is_text(place):
        return place, _typed_text(value.lstrip() if key != key.rstrip() else value)
    parsed, _ = _load(value, f"override '{text}'")
    return place, parsed


def _is_text(key: KeyPath) -> bool:
    """Whether the value of a key is a text of the writer's own (a path, a name), not one of a few words."""
    field = _fields_at(key[:-1]).get(str(key[-1]))
    return field is not None and any(map(_is_str, (field.annotation, *get_args(field.annotation))))


def _is_str(annotation: Any) -> bool:
    """Whether it is the type of texts, perhaps with conditions on them."""
    return annotation is str or (get_origin(annotation) is Annotated and get_args(annotation)[0] is str)


def _typed_text(value: str) -> str | None:
    """A text as it was typed, which YAML would cut at ` #` or take for a number; null and quotes mean what they do."""
    if value in ("null", "~", ""):
        return None
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        with contextlib.suppress(yaml.YAMLError, ValueError, OverflowError):
            return str(yaml.safe_load(value))
    return value


def _put(tree: dict[str, Any], key: KeyPath, value: Any, override: str) -> None:
    """Set one value; mappings on the way are made where they are missing."""
    here: Any = tree
    for part in key[:-1]:
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif isinstance(here, dict):
            if not isinstance(here.get(part), dict | list):
                here[part] = {}
            here = here[part]
        else:
            raise RecipeError(f"override '{override}': there is no {part} to set it in")
    last = key[-1]
    if isinstance(here, list):
        if not isinstance(last, int) or last >= len(here):
            raise RecipeError(f"override '{override}': the list has {len(here)} entries, counted from 0")
        here[last] = value
    else:
        here[last] = value
        if last in LENGTHS and key[:-1] == ("training",) and value is not None:
            for other in set(LENGTHS) - {last}:
                here.pop(other, None)  # the override replaces the other ways to give the length


def _report(error: ValidationError, tree: Any, origin: dict[KeyPath, str], name: str) -> str:
    rows = dict.fromkeys(_describe(error, tree, origin, name))
    for key, message in conflicts(tree):
        rows[f"{_where(key, origin, name)}: {message}"] = None
    count = f"{len(rows)} mistake{'s' if len(rows) > 1 else ''}"
    return "\n  ".join([f"{name}: {count} in the recipe", *rows])


def _describe(error: ValidationError, tree: Any, origin: dict[KeyPath, str], name: str) -> Iterator[str]:
    for item in error.errors(include_url=False):
        key = _real_key(item["loc"], tree)
        if not key and item["type"] == "value_error":
            yield from (f"{_where(place, origin, name)}: {message}" for place, message in item["ctx"]["error"].found)
            continue
        prefix = f"{_where(key, origin, name)}: {_dotted(key)}: "
        if item["type"] == "extra_forbidden":
            allowed = sorted(_fields_at(key[:-1]))
            yield f"{prefix}unknown key{_did_you_mean(str(key[-1]), allowed)}; allowed here: {', '.join(allowed)}"
        elif item["type"] == "missing":
            yield f"{prefix}is missing; {_field_help(key)}"
        else:
            message, found = wording(item["type"], item.get("ctx", {}), item["msg"]), item["input"]
            if item["type"] == "model_type":
                message = f"a section is wanted here, with the keys {', '.join(_fields_at(key))}"
            hint = ""
            if item["type"] == "literal_error" and isinstance(found, str):
                allowed = [part.strip("' ") for part in item["ctx"]["expected"].replace(" or ", ", ").split(",")]
                hint = _did_you_mean(found, allowed)
            yield f"{prefix}{message}{shown(found)}{hint}"


def _where(key: KeyPath, origin: dict[KeyPath, str], name: str) -> str:
    """The place of a key, or of the nearest section above it."""
    return next((origin[key[:n]] for n in range(len(key), 0, -1) if key[:n] in origin), name)


def _real_key(location: tuple[int | str, ...], tree: Any) -> KeyPath:
    """Drop the parts that pydantic adds for unions: keep what can be followed in the tree, and a missing last key."""
    key: list[str | int] = []
    here: Any = tree
    for position, part in enumerate(location):
        last = position == len(location) - 1
        entries = dict(enumerate(here)) if isinstance(here, list) else here
        if isinstance(entries, dict) and part in entries:
            here = entries[part]
        elif not (last and isinstance(entries, dict) and part in _fields_at(tuple(key))):
            continue
        key.append(part)
    return tuple(key)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple, dict):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def _fields_at(key: KeyPath) -> dict[str, Any]:
    """Field name → FieldInfo of the section that stands at a key path."""
    models: list[type[BaseModel]] = [Recipe]
    for part in key:
        below = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if below or not (isinstance(part, int) or key[:2] in _NAMED):  # else: a place in a list, or the name of a pool
            models = [section for annotation in below for section in _models_in(annotation)]
    return {name: field for model in models for name, field in model.model_fields.items()}


def _field_help(key: KeyPath) -> str:
    field = _fields_at(key[:-1]).get(str(key[-1]))
    return (field.description if field is not None else None) or "a section of the recipe"


def _did_you_mean(found: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(found, allowed, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


def _dotted(key: KeyPath) -> str:
    return ".".join(str(part) for part in key)


def _resolve_paths(recipe: Recipe) -> Recipe:
    """Every path absolute, so that the recipe written to the run folder runs from anywhere."""
    data = recipe.data.model_dump(exclude_unset=True)
    pools = list(data["source"]) if isinstance(data["source"], tuple | list) else [data["source"]]
    for role in ("target", "test", "unlabelled"):
        given = getattr(recipe.data, role)
        pools += data[role].values() if isinstance(given, dict) else [data[role]] if given is not None else []
    for pool in filter(lambda pool: not is_split(pool), pools):
        pool["path"] = _absolute(pool["path"])
        if pool.get("root") is not None:
            pool["root"] = _absolute(pool["root"])
    tree = recipe.model_dump(exclude_unset=True) | {"data": data}
    weights = recipe.model.weights
    if weights not in ("pretrained", "none", "bundled"):
        tree["model"]["weights"] = _absolute(weights)
    source, colon, place = recipe.model.backbone.partition(":")
    if colon and source.lower() == "local-dir":
        tree["model"]["backbone"] = f"{source}:{_absolute(place)}"
    if recipe.output.cache not in ("user", "none"):
        tree["output"]["cache"] = _absolute(recipe.output.cache)
    return Recipe.model_validate(tree)


def _absolute(path: str) -> str:
    filled = os.path.expanduser(os.path.expandvars(path))
    if "\0" in filled:
        raise RecipeError(f"path {path!r} holds a NUL character")
    if is_url(filled):
        filled = checked_url(filled)
    if (name := hub_name(filled)) is not None:
        return f"{PREFIX}{name}"
    return filled if is_url(filled) else os.path.abspath(filled)


def shipped_recipes() -> dict[str, Path]:
    """Recipes that come with the package, by name."""
    package = Path(__file__).parents[1]
    inside, checkout = package / "recipes", package.parent.parent / "recipes"
    return {path.stem: path for path in sorted((inside if inside.is_dir() else checkout).glob("*.yaml"))}
