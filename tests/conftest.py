import itertools
import os

# Compiling is most of the time of the tests: without LLVM's optimisations it takes half as long. What
# XLA_FLAGS has already goes first: `XLA_FLAGS=--xla_backend_optimization_level=3 pytest` tests programs
# as users run them.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import jax.random as jr
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Each compiled program maps some memory; a process that keeps all of them runs into the system's
    limit on the number of maps, and dies."""
    yield
    jax.clear_caches()


@pytest.fixture
def getkey():
    """Fresh keys, the same in every run."""
    counter = itertools.count()
    return lambda: jr.fold_in(jr.key(5678), next(counter))
