"""What a run is: the schema, its conflicts, and how a YAML file becomes one."""

from homing.recipe.data import PoolSpec
from homing.recipe.schema import Recipe

__all__ = ["PoolSpec", "Recipe"]
