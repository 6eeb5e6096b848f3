"""What cannot fit into memory is refused before it is tried, in microseconds; what can, is not."""

import functools
import re
import time
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
from kernelode._depth import (
    propagate as _propagate,
    response as _response,
    sizes as _sizes,
    solve as _solve,
)
from kernelode._support import memory as _memory

from .helpers import pair_kernel, resnet

PAIR = pair_kernel(1.0, 0.8, 0.3)
ERF = resnet(ko.Erf(), 10)
MANY = jnp.eye(60)


@pytest.fixture
def small_machine(monkeypatch):
    """A machine with a megabyte."""
    monkeypatch.setattr(_memory, "_ALWAYS_THERE", 0)
    monkeypatch.setattr(_memory, "available_bytes", lambda device=None: 1e6)


WIDE: dict[str, Any] = {
    "propagate, all layers": lambda: ko.propagate(resnet(ko.Erf(), 10**4), jnp.eye(10)),
    "propagate, four points": lambda: ko.propagate(ERF, MANY, closure=ko.GOnly(), layers=[10]),
    "propagate, tower": lambda: ko.propagate(ERF, jnp.eye(12), closure=ko.WickTower(8), layers=[10]),
    "propagate_pairs": lambda: ko.propagate_pairs(ERF, MANY),
    "propagate_pairs, tower": lambda: ko.propagate_pairs(ERF, MANY, closure=ko.WickTower(8)),
    "propagate, tangents": lambda: ko.propagate(ERF, MANY, closure=ko.TangentTower(8), layers=[10]),
    "solve, all depths": lambda: ko.solve(ERF, jnp.eye(10), jnp.linspace(0, 1, 10**4)),
    "solve, four points": lambda: ko.solve(ERF, MANY, [1.0], closure=ko.GOnly()),
    "solve, steps": lambda: ko.solve(ERF, MANY, [1.0], saveat=diffrax.SaveAt(steps=True)),
    "solve, dense": lambda: ko.solve(ERF, MANY, [1.0], saveat=diffrax.SaveAt(dense=True)),
    "solve_pairs": lambda: ko.solve_pairs(ERF, MANY, jnp.linspace(0, 1, 20)),
    "response": lambda: ko.response(ERF, jnp.eye(200)),
    "layer_response": lambda: ko.layer_response(ERF, MANY),
    "response_flow": lambda: ko.response_flow(ERF, MANY, jnp.linspace(0, 1, 9)),
    "optimal_residual_scale": lambda: ko.optimal_residual_scale(ERF, jnp.eye(100)),
    "optimal_flow_time": lambda: ko.optimal_flow_time(ERF, jnp.eye(200)),
    "many layers": lambda: ko.response(resnet(ko.Erf(), 10**6), PAIR),
    "inside jit": lambda: jax.jit(lambda k: ko.response(ERF, k).diagonal)(jnp.eye(200)),
}


@pytest.mark.parametrize("name", WIDE)
def test_what_does_not_fit_is_refused(name, small_machine):
    with pytest.raises(ValueError) as refused:
        WIDE[name]()
    sentence = str(refused.value.args[0])
    assert re.search(r"need about \S+ GB, but 0\.001 GB are free\. [A-Z].*\.$", sentence)


ENORMOUS: dict[str, Any] = {
    "all elements of V4": lambda: ko.propagate(ERF, jnp.eye(500), closure=ko.GOnly(), layers=[10]),
    "all layers": lambda: ko.propagate(resnet(ko.Erf(), 10**6), jnp.eye(1000)),
    "a depth without end": lambda: ko.propagate(resnet(ko.Erf(), 10**11), PAIR),
    "its last layer": lambda: ko.propagate(resnet(ko.Erf(), 10**11), PAIR, layers=[10**11]),
    "its response": lambda: ko.response(resnet(ko.Erf(), 10**11), PAIR),
    "its optimum": lambda: ko.optimal_residual_scale(resnet(ko.Erf(), 10**11), PAIR),
}


@pytest.mark.parametrize("name", ENORMOUS)
def test_what_fits_into_no_machine_is_refused_at_once(name):
    began = time.process_time()
    with pytest.raises(ValueError, match="GB are free"):
        ENORMOUS[name]()
    assert time.process_time() - began < 2


def test_moments_of_four_inputs_are_refused_too(small_machine, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(_memory, "_ALWAYS_THERE", 1e9)
        found = ko.propagate(resnet(ko.Linear(), 1), jnp.eye(24), closure=ko.GOnly(), layers=[1])
    with pytest.raises(ValueError, match="Moments of 24 inputs"):
        _ = found.kernel_covariance
    assert found.mean_kernel.shape == (1, 24, 24)


def test_a_small_calculation_does_not_wait():
    """Beside a call of a hundred microseconds."""
    closure, layers = ko.WickTower(8), [10]
    check = lambda: _sizes.check_propagation(ERF, PAIR, closure, layers)
    check()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(100):
            check()
        times.append((time.perf_counter() - began) / 100)
    assert min(times) < 5e-4  # 4 to 8 microseconds, without the type checks of the tests


def held(function, *arguments) -> int:
    """Bytes that XLA says a compiled function holds beside its arguments."""
    analysis = eqx.filter_jit(function).lower(*arguments).compile().compiled.memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def asked(check, monkeypatch) -> float:
    """The largest number of bytes that a check asks for."""
    seen = []
    monkeypatch.setattr(_sizes, "check_memory", lambda needed, *rest, **like: seen.append(needed))
    check()
    return max(seen)


ALL = tuple(range(11))
CLOSURES = {
    "MeanOnly": (ko.MeanOnly(), 50),
    "GOnly": (ko.GOnly(), 16),
    "GOnly pairs": (ko.GOnly().pairs(), 20),
    "WickTower pairs": (ko.WickTower(6).pairs(), 20),
    "WickTower": (ko.WickTower(6), 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("layers", [(10,), ALL], ids=["last", "all"])
@pytest.mark.parametrize("name", CLOSURES)
def test_the_estimate_is_a_lower_bound(name, layers, monkeypatch):
    """And not much below, where what is saved is most of it."""
    closure, n = CLOSURES[name]
    kernel = jnp.eye(n) + 0.3
    real = held(lambda net, k: _propagate._propagate(net, k, closure, layers), ERF, kernel)
    estimate = asked(lambda: _sizes.check_propagation(ERF, kernel, closure, layers), monkeypatch)
    assert estimate <= real
    if layers == ALL and "pairs" not in name:
        assert real <= 2 * estimate


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSURES)
def test_the_estimate_of_a_flow_is_a_lower_bound(name, monkeypatch):
    closure, n = CLOSURES[name]
    kernel, ts = jnp.eye(n) + 0.3, jnp.linspace(0.0, 1.0, 11)
    options = _solve.flow_options(None, None, None, None, None, 4096)
    real = held(lambda net, k: _solve._solve(net, k, ts, closure, options), ERF, kernel)
    check = lambda: _sizes.check_integration(ERF, kernel, closure, ts, options)
    assert asked(check, monkeypatch) <= real


@pytest.mark.slow
def test_the_estimate_of_responses_is_a_lower_bound(monkeypatch):
    kernel, ts = jnp.eye(50) + 0.3, jnp.linspace(0.0, 1.0, 11)
    options = _solve.flow_options(None, None, None, None, None, 4096)
    cases = [
        (_response._output_response, 0, {}),
        (_response._layer_response, 10, {}),
        (lambda net, k: _response._response_flow(net, k, ts, options), 11, {"flow": True}),
    ]
    for function, saved, flow in cases:
        real = held(function, ERF, kernel)
        check = functools.partial(_sizes.check_responses, ERF, kernel, saved, **flow)
        estimate = asked(check, monkeypatch)
        assert estimate <= real <= 2.5 * estimate


def test_the_size_of_a_state_is_that_of_its_arrays():
    kernel = jnp.eye(5) + 0.3
    for activation in (ko.Erf(), ko.GELU()):
        network = resnet(activation, 2)
        towers = (ko.WickTower(6), ko.WickTower(6).pairs(), ko.TangentTower(6))
        for closure in (ko.GOnly(), ko.GOnly().pairs(), ko.TangentKernel(), *towers):
            state = jax.eval_shape(closure.init, network, kernel)
            size = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state))
            # Some have the variances once more.
            assert 0 <= size - _sizes.state_numbers(network, closure, 5) <= 50


def test_what_is_free_is_known():
    free = _memory.available_bytes()
    assert free is None or 1e6 < free < 1e14
    assert _memory.available_bytes(jax.devices("cpu")[0]) is not None


def test_limits_of_groups_are_found(monkeypatch):
    """Of the group itself and of those around it, files aside; in versions 2 and 1."""
    files = {
        "/proc/self/cgroup": "0::/job/step\n",
        "/sys/fs/cgroup/job/step/memory.max": "max\n",
        "/sys/fs/cgroup/job/step/memory.current": "10\n",
        "/sys/fs/cgroup/job/memory.max": "1000\n",
        "/sys/fs/cgroup/job/memory.current": "600\n",
        "/sys/fs/cgroup/job/memory.stat": "anon 300\ninactive_file 200\n",
    }
    monkeypatch.setattr(_memory, "_text", lambda path: files.get(path, ""))
    assert _memory._free_in_group() == 600
    files.clear()
    files["/proc/self/cgroup"] = "5:cpu,memory:/a\n1:cpu:/\n"
    files["/sys/fs/cgroup/memory/a/memory.limit_in_bytes"] = "50"
    files["/sys/fs/cgroup/memory/a/memory.usage_in_bytes"] = "20"
    assert _memory._free_in_group() == 30
    files.clear()
    assert _memory._free_in_group() is None
    monkeypatch.undo()
    device = type("Device", (), {"memory_stats": lambda self: {"bytes_limit": 100, "bytes_in_use": 30}})
    monkeypatch.setattr(jax, "local_devices", lambda: [device()])
    assert _memory.available_bytes() == 70
