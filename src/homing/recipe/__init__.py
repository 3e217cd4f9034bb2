"""What a run is: the schema, its conflicts, and how a YAML file becomes one."""

from homing.recipe.schema import PoolSpec, Recipe

__all__ = ["PoolSpec", "Recipe"]
