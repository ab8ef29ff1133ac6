"""The package's folders: imports go one way between them; each module says what it is, and stays small."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import unitcell

PACKAGE = Path(unitcell.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def place(name):
    """The folder of a dotted module of the package, or the module itself where it stands at the top."""
    return name.split(".")[1] if "." in name else name


def imported(path):
    """Places that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "unitcell":
            names = [node.module] if "." in node.module else [f"unitcell.{alias.name}" for alias in node.names]
            yield from (place(name) for name in names)


def test_imports_go_one_way_between_folders():
    uses = {}
    for path in MODULES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        uses.setdefault(own, set()).update(set(imported(path)) - {own})
    order = list(TopologicalSorter(uses).static_order())  # CycleError names the folders of a cycle
    assert order.index("errors") < order.index("crystals") < order.index("scattering") < order.index("tilts")
    assert order.index("book") < order.index("symmetry") < order.index("commands") < order.index("cli")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_and_stays_small(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 350
