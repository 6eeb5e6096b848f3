"""The objects that the code of a function refers to, and which of them are a library's."""

import dis
import functools
import importlib.util
import site
import sys
import sysconfig
import types
from typing import Any

import jax
import numpy as np


def cells(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not there yet
            found.append(None)
    return found


def is_of_use(x: Any) -> bool:
    """Of what a library's closure holds: numbers, functions or objects that are not a library's, and
    other closures of it, which may hold such."""
    if isinstance(x, bool | int | float | str | tuple | np.ndarray | jax.Array):
        return True
    if isinstance(x, types.FunctionType) and x.__closure__:
        return True
    return callable(x) and not is_installed(getattr(x, "__module__", None) or type(x).__module__)


def globals_of(code: types.CodeType, namespace: dict[str, Any]) -> list[tuple[str, Any]]:
    """The variables of its module that a function reads, functions within it included; of other modules
    of the user's the attributes that it may read."""
    names, attributes = _names_read(code)
    found = []
    for name in sorted(names):
        if name not in namespace:
            continue
        value = namespace[name]
        found.append((name, value))
        if isinstance(value, types.ModuleType) and not is_installed(value.__name__):
            members = vars(value)
            found += [(f"{name}.{part}", members[part]) for part in sorted(attributes) if part in members]
    return found


def _names_read(code: types.CodeType) -> tuple[set[str], set[str]]:
    names, attributes = set(), set(code.co_names)
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner_names, inner_attributes = _names_read(constant)
            names |= inner_names
            attributes |= inner_attributes
    return names, attributes


@functools.cache
def is_installed(module: str | None) -> bool:
    """Whether a module is a library's: of Python, installed, or this one. A user's own is none of these,
    and need not be a file: notebooks."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__" or top == __name__.partition(".")[0]:
        return True
    if top in ("", "__main__"):
        return module is None
    try:
        found = sys.modules.get(top)
        spec = getattr(found, "__spec__", None) or importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    origins = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec else []
    return any(origin.startswith(folder) for origin in origins for folder in _library_folders())


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    own = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(dict.fromkeys([*own, *site.getsitepackages(), site.getusersitepackages()]))
