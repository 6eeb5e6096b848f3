"""What modules look like when they are printed."""

import equinox as eqx
import jax
import jax.numpy as jnp

import kernelode as ko
from kernelode._support.show import Shown

from .helpers import OwnLayered

KERNEL = jnp.array([[1.0, 0.3], [0.3, 0.8]])
NETWORK = ko.ResNet(ko.LeakyReLU(0.1), 3, residual_scale=0.25, weight_variance=jnp.array([1.0, 2.0, 3.0]))


def test_networks_show_their_numbers():
    text = repr(NETWORK)
    for part in ("LeakyReLU(negative_slope=0.1)", "residual_scale=0.25", "weight_variance=[1., 2., 3.]"):
        assert part in text, text
    assert "decay=0.0" in repr(OwnLayered(ko.Erf(), 2))


def test_solutions_show_their_kernels():
    solution = ko.propagate(ko.ResNet(ko.Linear(), 2, residual_scale=1.0), KERNEL, layers=[2])
    text = str(solution)
    for part in ("ts=[2.]", "[[[4. , 1.2]", "result=successful", "closure=MeanOnly()"):
        assert part in text, text
    long = str(ko.propagate(ko.ResNet(ko.Linear(), 20, residual_scale=0.0), KERNEL))
    assert "mean_kernel=float64[21, 2, 2] from 0.3 to 1" in long
    nothing = eqx.tree_at(lambda s: s.state, solution, None)
    assert "mean_kernel" not in str(nothing)


def test_statuses_are_counted():
    found = ko.optimal_residual_scale(ko.ResNet(ko.Erf(), 3), 0.05 * KERNEL)
    assert "status=2 interior" in str(found.diagonal)
    assert "status=2 interior, 2 increasing" in str(found)


def test_traced_numbers_have_shapes():
    seen = []

    @jax.jit
    def look(network):
        seen.append(repr(network))
        return network.residual_scale

    look(NETWORK)
    assert "residual_scale=~float64[]" in seen[0] or "residual_scale=float64[]" in seen[0]


def test_what_else_a_field_may_be():
    class Odd(Shown):
        key: jax.Array
        many: tuple[int, ...] = eqx.field(static=True)
        some: dict[str, int] = eqx.field(static=True)
        hidden: float = eqx.field(static=True, repr=False)

    text = repr(Odd(jax.random.key(0), tuple(range(50)), {"a": 1}, 2.0))
    assert text == "Odd(key=key[], many=tuple of 50, some={a: 1})"
