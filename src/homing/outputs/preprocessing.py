"""`preprocess.py`: the decoding of training as one file that needs Pillow and numpy alone, for an exported model."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

from homing.pools import colour, decoding, decoding_cost, formats, lost_pixels, pixels, prepared

SCRIPT = "preprocess.py"
_MODULES = (lost_pixels, formats, colour, pixels, decoding_cost, decoding, prepared)
_HEAD = '''"""Pictures as this model was trained on them. Needs Pillow and numpy.

    from preprocess import prepare, read_description
    images = prepare(["a.jpg", "b.png"], read_description("."))  # float32 [2, 3, size, size]

Written by homing: the text of its own decoding, so that no pixel differs.
"""

from __future__ import annotations

'''
_ERROR = '''

class DataError(ValueError):
    """A picture that cannot be used."""
'''


def preprocessing_script() -> str:
    """Text of `preprocess.py`: the modules that decode, one after the other, in one namespace."""
    imports: dict[str, set[str]] = {}  # what is imported from a module; nothing for the module itself
    bodies, names = [], set[str]()
    for module in _MODULES:
        body, found = _parts_of(module, imports)
        assert not names & found, f"two modules that decode both define {names & found}"
        names |= found
        bodies.append(body)
    return _HEAD + "\n".join(_import_lines(imports)) + "\n" + _ERROR + "\n\n" + "\n\n\n".join(bodies) + "\n"


def _import_lines(imports: dict[str, set[str]]) -> list[str]:
    return [f"{start} {', '.join(sorted(names))}".rstrip() for start, names in sorted(imports.items())]


def _parts_of(module: ModuleType, imports: dict[str, set[str]]) -> tuple[str, set[str]]:
    """The text of a module below its imports, which are added to the others, and the names that it defines."""
    text = inspect.getsource(module)
    tree = ast.parse(text)
    lines, names = text.splitlines(), set[str]()
    for position, node in enumerate(tree.body):
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        is_head = position == 0 and isinstance(node, ast.Expr)
        targets = node.targets if isinstance(node, ast.Assign) else []
        named = {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            named.add(node.target.id)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            named.add(node.name)
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith(("homing", "__")):
            imports.setdefault(f"from {node.module} import", set()).update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("homing.pools."):
            assert node.module in {other.__name__ for other in _MODULES}, f"{node.module} decodes too"
        elif isinstance(node, ast.Import):
            imports.setdefault(ast.unparse(node), set())
        if is_import or is_head or "__all__" in named:
            for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[line] = ""
        else:
            names |= named
    return "\n".join(lines).strip(), names
