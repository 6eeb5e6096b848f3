"""The arc tangent of the closed forms, against numpy's and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelode._activation.angle import angle


def points(dtype):
    """In every octant of the right half-plane and on its borders, over many orders of magnitude."""
    random = np.random.default_rng(0)
    size = np.exp(random.uniform(-20, 20, 20_000))
    y = np.concatenate([size * random.choice([-1, 1], size.size), np.linspace(-3, 3, 10_001)])
    return y.astype(dtype), np.ones_like(y).astype(dtype)


@pytest.mark.parametrize("dtype,units", [(np.float64, 5), (np.float32, 4)])
def test_to_a_few_units_in_the_last_place(dtype, units):
    y, x = points(dtype)
    truth = np.arctan2(y.astype(np.longdouble), x.astype(np.longdouble))
    found = jax.jit(angle)(jnp.asarray(y), jnp.asarray(x))
    assert found.dtype == dtype
    assert np.all(np.abs(np.asarray(found) - truth) <= units * np.finfo(dtype).eps / 2 * np.abs(truth))


def test_borders():
    y, x = jnp.array([0.0, 1.0, -1.0, 0.0, 1e-300, 1e300]), jnp.array([0.0, 0.0, 0.0, 1.0, 1.0, 1e-300])
    assert jnp.array_equal(jax.jit(angle)(y, x), jnp.arctan2(y, x))


def test_derivatives_are_those_of_the_arc_tangent():
    """To third order, also where the pieces of the approximation meet."""
    y = jnp.concatenate([jnp.linspace(-4.0, 4.0, 31), jnp.tan(jnp.pi / 8 * jnp.array([1.0, 2.0, 3.0]))])

    def tower(function):
        along = lambda f: lambda y: jax.jvp(f, (y,), (jnp.ones_like(y),))[1]
        first = along(lambda y: function(y, 1 + y**2 / 3))
        return jnp.stack([first(y), along(first)(y), along(along(first))(y)])

    assert jnp.allclose(tower(angle), tower(jnp.arctan2), rtol=1e-12, atol=1e-13)
    by_x, by_y = jax.grad(lambda x, y: angle(y, x), argnums=(0, 1))(*jnp.zeros(2))
    assert by_x == 0 and by_y == 0
