"""A fingerprint that tells functions of one name apart: of the code, and of everything it refers to.

Names do not: what was computed before an edit and after it would be mixed.
"""

import dataclasses
import enum
import functools
import hashlib
import sys
import types
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .references import cells, globals_of, is_installed, is_of_use

#: More objects than this are data of some other kind: then values have to tell.
_MOST = 20_000
#: Of larger arrays some entry is likely to round differently on another machine.
_SMALL = 4096


def code_fingerprint(thing: Any) -> str | None:
    """A digest of a function, or a pytree with functions, in characters; None if there are too many.

    It has the code of what the user wrote, without names of files, lines and local variables; constants,
    defaults, and the values of variables from outside: numbers, containers, attributes of modules, other
    functions. Of what an installed library wrote it has the name: the versions of libraries are kept
    besides. Of objects that it does not know it has the type.

    The same in every process, and on every machine, with the same version of Python. Numbers are
    therefore rounded; of large arrays there is the shape alone.
    """
    digest = _Digest()
    try:
        digest.add(thing)
    except Exception:
        # Too many, too deep, or an object that does not let itself be looked at: values can tell.
        return None
    major, minor = sys.version_info[:2]
    return f"python{major}.{minor}-{digest.hash.hexdigest()[:32]}"


def same_code(first: str | None, second: str | None) -> bool:
    """Whether two fingerprints may be of one function: they are equal, or cannot be compared, because one
    is missing or of another Python, whose byte code is another."""
    if first is None or second is None or first.partition("-")[0] != second.partition("-")[0]:
        return True
    return first == second


def _rounded(values: np.ndarray) -> list[float]:
    """To eight digits of the largest, which other machines agree on, and its power of ten. All is times
    pi, so that round numbers are not those at which either changes."""
    with np.errstate(all="ignore"):
        values = np.pi * values.astype(float).ravel()
        size = np.max(np.abs(values[np.isfinite(values)]), initial=0.0)
        exponent = 0.0 if size == 0 else float(np.floor(np.log10(size)))
        return [exponent, *(np.round(values * 10.0**-exponent, 8) + 0.0).tolist()]


class _TooMany(Exception):
    pass


class _Digest:
    """A hash of objects by their contents, each once: an object that is met again is its number."""

    def __init__(self):
        self.hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no other object gets the id of one that was met

    def add(self, x: Any) -> None:
        if isinstance(x, float):
            self._note("float", *_rounded(np.asarray(x)))
            return
        if x is None or isinstance(x, bool | int | complex | str | bytes) or x is Ellipsis:
            self._note(type(x).__name__, repr(x))
            return
        if id(x) in self._seen:
            self._note("again", self._seen[id(x)])
            return
        self._seen[id(x)] = len(self._seen)
        self._kept.append(x)
        if len(self._seen) > _MOST:
            raise _TooMany
        self._add_object(x)

    def _note(self, *words: Any) -> None:
        self.hash.update("\0".join(map(str, words)).encode() + b"\1")

    def _add_all(self, kind: str, items: Any) -> None:
        items = list(items)
        self._note(kind, len(items))
        for item in items:
            self.add(item)

    def _add_object(self, x: Any) -> None:
        if isinstance(x, np.ndarray | np.generic | jax.Array):
            self._add_array(x)
        elif isinstance(x, enum.Enum):
            self._note("enum", type(x).__qualname__, x.name)
        elif isinstance(x, tuple | list):
            self._add_all(type(x).__name__, x)
        elif isinstance(x, set | frozenset):
            self._add_unordered(x)
        elif isinstance(x, dict):
            self._add_all("dict", [part for item in x.items() for part in item])
        elif isinstance(x, types.CodeType):
            self._add_code(x)
        elif isinstance(x, types.ModuleType):
            self._note("module", x.__name__)
        elif isinstance(x, types.FunctionType):
            self._add_function(x)
        elif isinstance(x, types.MethodType):
            self._add_all("method", [x.__func__, x.__self__])
        elif isinstance(x, functools.partial):
            self._add_all("partial", [x.func, x.args, x.keywords])
        elif isinstance(x, type):
            self._add_class(x)
        else:
            self._add_instance(x)

    def _add_array(self, x: Any) -> None:
        self._note("array", np.shape(x), x.dtype)
        here = not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)
        if not here or np.size(x) > _SMALL:
            return
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        values = np.asarray(x)
        if values.dtype == np.float64:
            self._note(*_rounded(values))
        elif values.dtype.kind in "biuUS":
            self._note(*values.ravel().tolist())

    def _add_unordered(self, items: Any) -> None:
        parts = []
        for item in items:
            part = _Digest()
            part.add(item)
            parts.append(part.hash.hexdigest())
        self._note("set", *sorted(parts))

    def _add_code(self, code: types.CodeType) -> None:
        self._note("code", code.co_argcount, code.co_kwonlyargcount, code.co_flags)
        self.hash.update(code.co_code)
        self.hash.update(getattr(code, "co_exceptiontable", b""))
        self._note(*code.co_names)
        self._add_all("constants", code.co_consts)

    def _add_function(self, function: types.FunctionType) -> None:
        self._note("function")
        # Not `function.__module__`, which decorators copy from what they decorate.
        module = function.__globals__.get("__name__")
        if is_installed(module):
            self._note(module, function.__qualname__)
            # A decorator of a library holds what it decorates.
            held = [*cells(function), getattr(function, "__wrapped__", None)]
            self._add_all("cells", filter(is_of_use, held))
            return
        code = function.__code__
        if function.__doc__ is not None and code.co_consts and code.co_consts[0] == function.__doc__:
            code = code.replace(co_consts=(None, *code.co_consts[1:]))
        self._add_code(code)
        self._add_all("defaults", [function.__defaults__, function.__kwdefaults__])
        self._add_all("cells", cells(function))
        for name, value in globals_of(function.__code__, function.__globals__):
            self._note("global", name)
            self.add(value)

    def _add_class(self, cls: type) -> None:
        self._note("class", cls.__module__ if is_installed(cls.__module__) else "", cls.__qualname__)
        if is_installed(cls.__module__):
            return
        self._add_all("bases", cls.__bases__)
        for name, value in sorted(vars(cls).items()):
            if name not in _BESIDE_THE_CODE and not name.startswith(("_abc_", "__dataclass")):
                self._note("member", name)
                self.add(_bare(value))

    def _add_instance(self, x: Any) -> None:
        cls = type(x)
        self.add(cls)
        wrapped = getattr(x, "__wrapped__", None)
        open_to_view = isinstance(x, eqx.Module) or dataclasses.is_dataclass(x)
        if wrapped is not None:  # jax.jit, functools.cache and the like
            self.add(wrapped)
        elif open_to_view or not is_installed(cls.__module__):
            self._add_all("fields", [part for item in sorted(_state(x).items()) for part in item])
        elif callable(x):
            name = getattr(x, "__qualname__", getattr(x, "__name__", ""))
            self._note("callable", getattr(x, "__module__", ""), name)


#: Of a class's dictionary: what says where it was defined, or is made by the interpreter.
_BESIDE_THE_CODE = frozenset(
    "__module__ __qualname__ __doc__ __dict__ __weakref__ __annotations__ __annotations_cache__ "
    "__annotate_func__ __firstlineno__ __static_attributes__ __abstractmethods__ __slots__ "
    "__parameters__ __orig_bases__ __match_args__".split()
)


def _state(x: Any) -> dict[str, Any]:
    return dict(getattr(x, "__dict__", {}))


def _bare(member: Any) -> Any:
    """The function of a method, however a class keeps it: static, cached, or as Equinox does."""
    if isinstance(member, property):
        return [member.fget, member.fset]
    for name in ("__func__", "__wrapped__", "method", "func"):
        inner = getattr(member, name, None)
        if isinstance(inner, types.FunctionType):
            return inner
    return member
