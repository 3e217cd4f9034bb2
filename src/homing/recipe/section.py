"""What every part of a recipe has in common."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of every part of a recipe: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _switches_are_no_numbers(cls, tree: Any) -> Any:
        """`steps: true` would be one step."""
        if not isinstance(tree, dict):
            return tree
        kinds = {name: (field.annotation, *get_args(field.annotation)) for name, field in cls.model_fields.items()}
        wrong = {
            name for name, value in tree.items() if isinstance(value, bool) and bool not in kinds.get(name, (bool,))
        }
        return {name: str(value).lower() if name in wrong else value for name, value in tree.items()}
