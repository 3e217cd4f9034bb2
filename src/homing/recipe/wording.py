"""What is wrong with a value of a recipe, in words of a recipe's writer instead of its checker's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SHOWN = 80  # characters of a wrong value
_WANTED = {
    "int_type": "a whole number is wanted",
    "int_parsing": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "int_parsing_size": "a whole number of fewer digits is wanted",
    "float_type": "a number is wanted",
    "float_parsing": "a number is wanted",
    "finite_number": "a finite number is wanted",
    "string_type": "a text is wanted",
    "bool_type": "true or false is wanted",
    "bool_parsing": "true or false is wanted",
    "tuple_type": "a list is wanted, such as [a, b]",
    "list_type": "a list is wanted, such as [a, b]",
    "dict_type": "names with a section each are wanted",
    "greater_than_equal": "at least {ge} is wanted",
    "greater_than": "more than {gt} is wanted",
    "less_than_equal": "at most {le} is wanted",
    "less_than": "less than {lt} is wanted",
    "string_too_short": "a text of at least {min_length} characters is wanted",
    "string_too_long": "a text of at most {max_length} characters is wanted",
    "string_pattern_mismatch": "a name of letters, digits, `_`, `-` and `.` is wanted",
    "literal_error": "{expected} is wanted",
}


def wording(kind: str, context: Mapping[str, Any], message: str) -> str:
    """What is wanted.

    Args:
        kind: Of the mistake, as pydantic calls it.
        context: Its limits.
        message: pydantic's own, for kinds that the table does not know.
    """
    wanted = _WANTED.get(kind)
    if wanted is None:
        return message[:1].lower() + message[1:]
    plain = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    text = wanted.format(**plain)
    return text.replace("at least 1 characters", "at least 1 character")


def shown(found: Any) -> str:
    """A wrong value as a message quotes it, as YAML has it; nothing for lists and sections."""
    if found is None:
        return ", found nothing"
    if isinstance(found, bool):
        return f", found {str(found).lower()}"
    if not isinstance(found, str | int | float):
        return ""
    if isinstance(found, int) and found.bit_length() > 64:
        return ", found a number too large to print"
    text = repr(found)
    return f", found {text if len(text) <= _SHOWN else text[:_SHOWN] + ' ...'}"
