"""Fine-tune an image model for one domain, with a learned rate for every source sample."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from homing.flow import RunResult, run
    from homing.recipe.reading import parse_recipe, read_recipe
    from homing.recipe.schema import Recipe

__all__ = ["Recipe", "RunResult", "parse_recipe", "read_recipe", "run"]
_HOMES = {
    "Recipe": "homing.recipe.schema",
    "RunResult": "homing.flow",
    "parse_recipe": "homing.recipe.reading",
    "read_recipe": "homing.recipe.reading",
    "run": "homing.flow",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line must answer before torch is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module 'homing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """Public names win over submodules: importing the module `homing.run` must not hide the function `homing.run`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
