"""Symmetric kernels folded into a rectangle: nothing is lost, and layers map them as they do blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko
from kernelode._kernel import as_block, as_matrix, as_triangle, fold, sides, unfold

COUNTS = [1, 2, 3, 4, 5, 10, 11]


def symmetric(n: int) -> jax.Array:
    half = jax.random.normal(jax.random.key(n), (n, n))
    return half + half.T


@pytest.mark.parametrize("n", COUNTS)
def test_every_entry_once(n):
    matrix = symmetric(n)
    folded = fold(matrix)
    assert folded.size == n * (n + 1) // 2
    assert np.array_equal(np.sort(folded.reshape(-1)), np.sort(matrix[np.triu_indices(n)]))
    assert np.array_equal(unfold(folded, n), matrix)
    assert np.array_equal(as_triangle(matrix).matrix(), matrix)


def test_derivatives_by_a_symmetric_kernel_are_symmetric():
    """What follows them stays a kernel."""
    kernel = ko.input_kernel(jax.random.normal(jax.random.key(0), (4, 9)))
    network = ko.ResNet(ko.Erf(), 3, residual_scale=0.5)
    slopes = jax.grad(lambda k: ko.propagate(network, k).mean_kernel[-1, 0, 2])(kernel)
    assert jnp.array_equal(slopes, slopes.T)
    step = 1e-5 * jnp.zeros((4, 4)).at[0, 2].set(1.0).at[2, 0].set(1.0)
    entry = lambda k: ko.propagate(network, k).mean_kernel[-1, 0, 2]
    moved = (entry(kernel + step) - entry(kernel - step)) / 2e-5
    assert slopes[0, 2] + slopes[2, 0] == pytest.approx(float(moved), rel=1e-8)


@pytest.mark.parametrize("n", COUNTS)
def test_sides_are_the_inputs_of_an_entry(n):
    values = jnp.arange(n, dtype=float)
    first, second = sides(values)
    of_pair = values[:, None] * values[None, :] + values[:, None] + values[None, :]
    assert np.array_equal(first * second + first + second, fold(of_pair))


@pytest.mark.parametrize("activation", [ko.Erf(), ko.ReLU(), ko.Tanh()], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("n", [1, 4, 5])
def test_layers_map_triangles_as_blocks(activation, n):
    """Value and derivative, of inputs that are equal and parallel too."""
    x = jax.random.normal(jax.random.key(1), (n, 3)).at[-1].set(1.0).at[0].set(-1.0)
    kernel = ko.input_kernel(x)
    network = ko.ResNet(activation, 3, residual_scale=0.7, bias_variance=0.1, layers_per_block=2)
    layer = jax.tree.map(lambda leaf: leaf[0], network.layers())
    by_triangle = lambda k: network.layer(as_triangle(k), layer).matrix()
    by_block = lambda k: as_matrix(network.layer(as_block(k), layer))
    (ours, theirs), (by_ours, by_theirs) = jax.jvp(
        lambda k: (by_triangle(k), by_block(k)), (kernel,), (kernel + symmetric(n) @ symmetric(n),)
    )
    assert jnp.allclose(ours, theirs, rtol=1e-13, atol=1e-14)
    assert jnp.allclose(by_ours, by_theirs, rtol=1e-12, atol=1e-13)
