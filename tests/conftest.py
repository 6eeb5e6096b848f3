import itertools
import os
import shutil
import subprocess
import sys
import tempfile

# Compiling is most of the time of the tests: without LLVM's optimisations it takes half as long, and half
# of that with XLA's older emitters of loops. (XLA ends a process that gives it a flag it does not know,
# and a later one may not know that.) What XLA_FLAGS has already goes first:
# `XLA_FLAGS=--xla_backend_optimization_level=3 pytest` tests programs as users run them.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    flags = os.environ["XLA_FLAGS"] + " --xla_cpu_use_fusion_emitters=false"
    probe = [sys.executable, "-c", "import jax; jax.devices('cpu')"]
    if subprocess.run(probe, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode == 0:
        os.environ["XLA_FLAGS"] = flags

# A program is compiled once in a run of the tests: the modules, both workers and the processes that tests
# start find it in a folder of this run's own, which the run makes first and removes last. (Workers have
# the folder from the process that starts them.) Even small ones are kept, for there are thousands.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="kernelode-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jax.random as jr
import pytest

# A plugin may have imported JAX before the variables were set.
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_unconfigure(config):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


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
