"""A chapter's parameters: what its notebook declares, and what a caller may give."""

import ast

import nbformat

from unitcell.errors import InputError


def declared_parameters(notebook):
    """Names and default values in the notebook's cell tagged `parameters`, as a dictionary."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            return {
                statement.targets[0].id: ast.literal_eval(statement.value)
                for statement in ast.parse(cell.source).body
                if isinstance(statement, ast.Assign)
            }
    raise InputError(f"{notebook} has no cell tagged 'parameters': tag the cell that holds its plain literals.")


def require_known(given, declared, where):
    """Raise InputError for the first name in `given` that `declared` lacks."""
    for name in given:
        if name not in declared:
            raise InputError(f"{where} has no parameter '{name}': it takes {', '.join(declared)}.")


def require_numbers(given, declared, where):
    """Raise InputError where a number arrived as text, which YAML makes of 1e-3 (it wants 1.0e-3)."""
    for name, value in given.items():
        if isinstance(value, str) and not isinstance(declared[name], str) and _is_number(value):
            raise InputError(f"{where}: {name} is the text '{value}', not a number: write it as {float(value)!r}.")


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True
