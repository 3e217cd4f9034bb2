"""YAML as YAML 1.2 has it: `no` is a text, 010 is no octal number, 1e-3 is a number, a date is a text.

PyYAML reads YAML 1.1, in which `epochs: 010` are 8 and `steps: 1:30` are 90.
"""

from __future__ import annotations

import re

import yaml

TEXT = "tag:yaml.org,2002:str"
_KINDS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+0123456789.",
    ),
)
_OF_LOOKS = [f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float")]


class Loader(yaml.SafeLoader):
    """Plain values, and nothing that is not in YAML 1.2's core: no dates, no merging, no sexagesimals."""


Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _KINDS:
    for _letter in _first:
        place = Loader.yaml_implicit_resolvers.setdefault("" if _letter == "\0" else _letter, [])
        place.append((f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z", re.ASCII)))


def is_plain(node: yaml.Node) -> bool:
    """Whether a value was written without quotes and is more than nothing, so that its looks made it a number."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.tag in _OF_LOOKS
