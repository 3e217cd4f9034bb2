"""Write docs/recipe-reference.md out of the recipe's schema.

    python docs/recipe_reference.py

A test fails where the page is behind the schema.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from homing.recipe.schema import Recipe

PAGE = Path(__file__).parent / "recipe-reference.md"
_HEAD = """# Recipe reference

A recipe is a YAML file. Every key that it may hold is listed here, with its default; unknown keys are mistakes, and
all mistakes are reported at once. Any key can be replaced on the command line:
`homing run my.yaml training.epochs=1 data.source.limit=500`. Paths are relative to the folder in which the command
runs; `~` and `$NAME` are filled in. Nothing in a recipe is ever executed.

This page is written by `python docs/recipe_reference.py` out of the schema in `src/homing/recipe/`.
"""
_BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
_KINDS = {"integer": "whole number", "string": "text", "boolean": "true or false", "null": "nothing"}


def page() -> str:
    """The whole page."""
    schema = Recipe.model_json_schema()
    parts = [_HEAD, *_section("", schema, schema["$defs"])]
    return "\n".join(parts).rstrip() + "\n"


def _section(path: str, schema: dict[str, Any], sections: dict[str, Any]) -> list[str]:
    """A heading, a table of the plain keys, then the sections inside."""
    places = ["data.source", "data.target", "data.test"] if path == "data.source" else [path]
    title = f"## {', '.join(f'`{place}`' for place in places)}" if path else "## Top level"
    lines = [title, "", schema.get("description", "").splitlines()[0], ""]
    lines += ["| key | allowed | default | what it is |", "|---|---|---|---|"]
    inner: list[str] = []
    for name, field in schema["properties"].items():
        names = [option["$ref"].rsplit("/", 1)[-1] for option in _options(field) if "$ref" in option]
        default = "**required**" if name in schema.get("required", ()) else _default(field.get("default"))
        place = f"{path}.{name}" if path else name
        about = field.get("description") or (sections[names[0]]["description"].splitlines()[0] if names else "")
        allowed = " or ".join(dict.fromkeys(_allowed(option, sections) for option in _options(field)))
        lines.append(f"| `{name}` | {allowed} | {default} | {about} |")
        for kind in names:
            if kind != "PoolSpec" or name == "source":
                inner += ["", *_section(place, sections[kind], sections)]
    return [*lines, *inner]


def _options(field: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [part for key in ("anyOf", "oneOf") for part in field.get(key, ())]
    return [option for part in parts for option in _options(part)] or [field]


def _allowed(option: dict[str, Any], sections: dict[str, Any]) -> str:
    if "$ref" in option:
        return "a pool" if option["$ref"].endswith("Spec") else "a section"
    if "patternProperties" in option:
        held = _options(next(iter(option["patternProperties"].values())))
        return f"a mapping of names, each to {' or '.join(_allowed(one, sections) for one in held)}"
    if "additionalProperties" in option:
        return f"a mapping of texts, each to {_allowed(option['additionalProperties'], sections)}"
    if option.get("type") == "array":
        return f"a list of {_allowed(option['items'], sections).replace('a pool', 'pools')}"
    if "const" in option:
        return f"`{option['const']}`"
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    bounds = [text.format(f"{option[key]:,}") for key, text in _BOUNDS.items() if key in option]
    return " ".join([_KINDS.get(option["type"], option["type"]), *(bounds and [", ".join(bounds)])])


def _default(value: Any) -> str:
    if isinstance(value, dict):
        return "as below" if value else "`{}`"
    if value is None:
        return "–"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
