"""Importing neural-tangents on today's JAX, without TensorFlow.

neural-tangents 0.6.5, its last release (2023), imports a few names that JAX has moved since, and
TensorFlow for one experimental module. The moved names are lent to JAX while the import runs and taken
back afterwards, so nobody else sees a JAX that is not JAX; TensorFlow's module is left out.

What is lent serves the import alone. Of neural-tangents, `stax`, `predict` and the empirical kernels
by Jacobian contraction or NTK-vector products work; structured derivatives use more of JAX's former
internals and do not.
"""

import contextlib
import importlib
import importlib.util
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.interpreters.ad

_PACKAGE = "neural_tangents"
_EXPERIMENTAL = f"{_PACKAGE}.experimental"
_MOVED_TO_EXTEND = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
_REMEDY = (
    "Install it with `pip install --no-deps neural-tangents==0.6.5` (its TensorFlow is not needed) "
    'and its other requirements with `pip install "kernelode[baselines]"`.'
)

# Two threads lending at once would take back each other's names. Reentrant, because an import
# runs code that is not ours.
_lock = threading.RLock()


def load_neural_tangents() -> Any:
    """The `neural_tangents` module, imported now if it has not been.

    JAX's namespace, the warning filters and, if the import fails, the modules of neural-tangents
    are left as they were. A neural-tangents that has been imported already is used as it is.
    `neural_tangents.experimental`, which needs TensorFlow, is not loaded. Safe to call from several
    threads.

    **Returns** the module.

    **Raises** `ImportError`, with the remedy, if neural-tangents or something that it needs is not
    installed, or if it does not work with the installed JAX.
    """
    with _lock:
        try:
            if _PACKAGE in sys.modules:
                return importlib.import_module(_PACKAGE)
            return _import_with_moved_names()
        except ModuleNotFoundError as error:
            missing = error.name or str(error)
            raise ImportError(
                f"neural-tangents cannot be imported, for want of the module `{missing}`. {_REMEDY}",
                name=_PACKAGE,
            ) from error
        # On a JAX that it does not know, a library may fail with more than an `ImportError`.
        except Exception as error:
            raise ImportError(
                f"neural-tangents does not import on JAX {jax.__version__}: {error}. The loader knows "
                f"neural-tangents 0.6.5; it was tested on JAX 0.10.2. {_REMEDY}",
                name=_PACKAGE,
            ) from error


def _import_with_moved_names() -> types.ModuleType:
    already_there = set(sys.modules)
    try:
        with warnings.catch_warnings(), _moved_names():
            # Deprecations in a library that is no longer developed: nothing for a user to act on.
            warnings.simplefilter("ignore")
            module = importlib.import_module(_PACKAGE)
    except BaseException:
        # Python forgets the package, but keeps those of its modules that were complete.
        for name in set(sys.modules) - already_there:
            if name.partition(".")[0] == _PACKAGE:
                del sys.modules[name]
        raise
    # The stub of `experimental`: without it, a later import of that module is a real one.
    vars(module).pop("experimental", None)
    return module


@contextlib.contextmanager
def _moved_names() -> Iterator[None]:
    """JAX with the names that neural-tangents looks for, until the end of the `with` block."""
    attributes = [
        *((jax.core, name, getattr(jax.extend.core, name)) for name in _MOVED_TO_EXTEND),
        # A primitive for which neural-tangents registers rules. JAX binds it no more, so that no
        # computation contains it and any primitive will do.
        (jax.interpreters.ad, "zeros_like_p", jax.extend.core.Primitive("zeros_like")),
    ]
    # Looked up in `vars`, since asking a JAX module for a deprecated attribute warns.
    attributes = [entry for entry in attributes if entry[1] not in vars(entry[0])]
    modules = {_EXPERIMENTAL: types.ModuleType(_EXPERIMENTAL)}
    if importlib.util.find_spec("jax.util") is None:
        modules["jax.util"] = _former_jax_util()
    try:
        for owner, name, value in attributes:
            setattr(owner, name, value)
        sys.modules.update(modules)
        yield
    finally:
        for owner, name, _ in attributes:
            vars(owner).pop(name, None)
        for name in modules:
            sys.modules.pop(name, None)


def _former_jax_util() -> types.ModuleType:
    """`jax.util`, as far as neural-tangents uses it: `map` and `zip` that refuse unequal lengths."""
    module: Any = types.ModuleType("jax.util")
    module.safe_zip = lambda *sequences: list(zip(*sequences, strict=True))
    module.safe_map = lambda fn, *sequences: [fn(*entries) for entries in zip(*sequences, strict=True)]
    return module
