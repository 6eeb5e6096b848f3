"""The tangent kernel of networks of a given width, from its moments of order 1/n."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelode as ko

from .helpers import relative_error

LAYERS = 4


def moments() -> ko.TangentMoments:
    """Of made-up numbers: without times, and elements whose sizes differ."""
    theta = jnp.array([[4.0, -1.0], [-1.0, 1.0]])
    zeros = jnp.zeros((2, 2, 3, 3)), jnp.zeros((2, 2, 2, 2, 2, 2))
    return ko.TangentMoments(
        tangent_kernel=theta,
        correction=jnp.array([[2.0, -3.0], [-3.0, 0.5]]),
        covariance=zeros[0],
        mixed=zeros[0],
        cross=zeros[1],
        exchange=zeros[1],
        variance=jnp.array([[16.0, 2.0], [2.0, 0.0]]),
        correction_truncation=jnp.zeros((2, 2)),
        covariance_truncation=zeros[0],
        mixed_truncation=zeros[0],
        cross_truncation=zeros[1],
        exchange_truncation=zeros[1],
    )


def test_mean_and_spread_without_times():
    found = moments().at_width(8)
    np.testing.assert_array_equal(found.mean, [[4.25, -1.375], [-1.375, 1.0625]])
    np.testing.assert_allclose(found.standard_deviation, np.sqrt([[2, 0.25], [0.25, 0]]), rtol=1e-14)
    # The shift of the pair: 3 / 8 beside sqrt(4 * 1).
    assert found.validity.shape == () and abs(found.validity - 3 / 16) < 1e-15
    assert found.result == ko.RESULTS.successful
    # The variance of the first input: 16 / n beside 4^2.
    np.testing.assert_allclose(moments().at_width(1.0).validity, 1.5, rtol=1e-15)


def test_an_expansion_that_is_not_small_says_so():
    # validity = 3 / (2 n): 1/2 at n = 3, which is the last that counts as small.
    assert moments().at_width(3).result == ko.RESULTS.successful
    assert moments().at_width(2.99).result == ko.RESULTS.expansion_not_small


@pytest.mark.parametrize(
    "kernel", [jnp.ones((1, 1)), pytest.param(jnp.array([[1, 0.3], [0.3, 0.7]]), marks=pytest.mark.slow)]
)
def test_a_stack_of_rectifiers(kernel):
    # Theory at C_b = lambda_b = 0, C_W = 2: n Var / Theta^2 = m (11 l - 4) / (3 l), m = l - 1, and the
    # mean of one input is that of infinite width.
    network = ko.MLP(ko.ReLU(), LAYERS, weight_variance=2.0, input_weight_variance=2.0)
    solution, n = ko.propagate(network, kernel, closure=ko.TangentTower(4)), 50
    found = solution.tangent.at_width(n)
    layer = np.arange(1, LAYERS + 2)
    expected = (layer - 1) * (11 * layer - 4) / (3 * layer)
    theta = solution.tangent_kernel[:, 0, 0]
    spread = found.standard_deviation[:, 0, 0] / theta
    np.testing.assert_allclose(n * spread**2, expected, rtol=1e-10)
    np.testing.assert_allclose(found.mean[:, 0, 0], theta, rtol=1e-12)
    np.testing.assert_allclose(found.validity, expected / n, rtol=1e-10)  # a pair's is smaller
    assert found.mean.shape == (LAYERS + 1, *kernel.shape) and found.result == ko.RESULTS.successful
    last = solution.tangent.at_width(jnp.max(expected) / 0.51)
    assert last.result == ko.RESULTS.expansion_not_small


@pytest.mark.slow
def test_the_lowest_order_is_exact_in_feed_forward_networks():
    # At order 2 the sectors of an odd activation have a single degree.
    kernel = jnp.array([[1.2, 0.5], [0.5, 0.9]])
    network = ko.MLP(ko.Erf(), 2, weight_variance=1.5, bias_variance=0.1)
    low, high = (ko.propagate(network, kernel, closure=ko.TangentTower(p)).tangent for p in (2, 8))
    for name in ("covariance", "mixed", "cross", "exchange", "variance", "correction"):
        assert relative_error(getattr(low, name), getattr(high, name)) < 1e-12


def test_widths_are_traced():
    at = eqx.filter_jit(lambda n: moments().at_width(n))
    assert relative_error(at(jnp.asarray(8)).mean, moments().at_width(8).mean) < 1e-15
    many = eqx.filter_vmap(at)(jnp.array([1.0, 4.0, 16.0]))
    np.testing.assert_allclose(many.validity, 1.5 / np.array([1, 4, 16]), rtol=1e-15)
    slope = jax.grad(lambda n: moments().at_width(n).mean[0, 0])(4.0)
    np.testing.assert_allclose(slope, -2 / 16, rtol=1e-15)
    # An element that does not fluctuate has a spread of zero at every width.
    slope = jax.grad(lambda n: jnp.sum(moments().at_width(n).standard_deviation))(4.0)
    np.testing.assert_allclose(slope, -(4 + 2 * np.sqrt(2)) / 16, rtol=1e-14)


def test_an_input_without_a_tangent_kernel_counts_for_nothing():
    theta = jnp.array([[4.0, 0.0], [0.0, 0.0]])
    alone = eqx.tree_at(
        lambda m: (m.tangent_kernel, m.correction, m.variance),
        moments(),
        (theta, theta / 2, jnp.zeros((2, 2))),
    )
    assert alone.at_width(2).validity == 0.25


@pytest.mark.parametrize("name", ["tangent_kernel", "correction", "variance"])
def test_what_is_not_a_number_is_not_small(name):
    where = lambda m: getattr(m, name)
    found = eqx.tree_at(where, moments(), jnp.full((2, 2), jnp.nan)).at_width(100)
    assert jnp.isnan(found.validity) and found.result == ko.RESULTS.expansion_not_small


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_that_of_the_moments(dtype):
    found = jax.tree.map(lambda x: x.astype(dtype), moments()).at_width(8)
    assert {found.mean.dtype, found.standard_deviation.dtype, found.validity.dtype} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(("width", "error"), [(0, ValueError), (-3.0, ValueError), ("wide", TypeError)])
def test_widths_that_are_none(width, error):
    with pytest.raises(error, match="`width`"):
        moments().at_width(width)
