"""High degrees of single inputs along a flow, which have no state: against towers that integrate them."""

import functools
import math
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import kernelode as ko

ACTIVATIONS = {
    "tanh": ko.Tanh(),
    "erf": ko.Erf(),
    "gelu": ko.GELU(),
    "softplus": ko.Softplus(),
    "swish": ko.Swish(),
    "sin": ko.Sin(),
    "sin3": ko.Elementwise(lambda x: jnp.sin(3 * x)),
    "bump": ko.Elementwise(lambda x: x * jnp.exp(-(x**2) / 2)),
    "square": ko.Polynomial([0.0, 1.0, 0.25]),
    "relu": ko.ReLU(),
    "leaky": ko.LeakyReLU(0.2),
    "hard_tanh": ko.Elementwise(lambda x: jnp.clip(x, -1, 1), (-1.0, 1.0)),
}


@functools.cache
def solver(name: str, closure: ko.WickTower):
    """V4, K1 and their errors, in the stream and in the read-out, for a batch of flows of one input."""

    def one(q, weight_variance, bias_variance, t):
        net = ko.ResNet(
            ACTIVATIONS[name],
            4,
            residual_scale=0.4,
            weight_variance=weight_variance,
            bias_variance=bias_variance,
        )
        found = ko.solve_pairs(net, q[None, None], t[None], closure=closure, max_steps=2**14, throw=False)
        numbers = lambda m: jnp.stack(
            [
                m.kernel_covariance.ravel()[0],
                m.mean_correction.ravel()[0],
                m.covariance_truncation.ravel()[0],
                m.correction_truncation.ravel()[0],
                m.mean_kernel.ravel()[0],
            ]
        )
        return jnp.stack([numbers(found.moments), numbers(found.read_out)])

    return eqx.filter_jit(jax.vmap(one))


def draws(name: str, count: int, longest: float = 2.5):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    low, high = math.log(0.1), math.log(10.0)
    return (
        jnp.asarray(np.exp(rng.uniform(low, high, count))),
        jnp.asarray(rng.uniform(0.8, 2.2, count)),
        jnp.asarray(rng.choice([0.0, 0.1], count)),
        jnp.asarray(np.exp(rng.uniform(math.log(0.1), math.log(longest), count))),
    )


def check(name: str, order: int, count: int, *, reference: int = 240, longest: float = 2.5):
    """The errors are within what is reported; their ratios, for V4 and K1, and the errors."""
    arguments = draws(name, count, longest)
    found = np.asarray(solver(name, ko.WickTower(order))(*arguments))
    plain = np.asarray(solver(name, ko.WickTower(order, single_order=order))(*arguments))
    true = np.asarray(solver(name, ko.WickTower(4, single_order=reference))(*arguments))
    assert np.all(np.isfinite(found))
    size = np.stack([true[..., 4] ** 2, true[..., 4]], axis=-1)
    error, reported = np.abs(found - true)[..., :2], found[..., 2:4]
    known = true[..., 2:4] < 0.1 * reported + 1e-9 * size
    rounding = 3e-8 * size
    assert np.all((error <= reported + true[..., 2:4] + rounding) | ~known), (name, order)
    # Never much worse than the tower without them.
    before = np.abs(plain - true)[..., :2]
    worse = error > before + reported * 0 + rounding
    ratios = [
        np.sort((reported / error)[..., i][known[..., i] & (error > rounding)[..., i]]) for i in (0, 1)
    ]
    gains = [np.sort((before / error)[..., i][(error > rounding)[..., i]]) for i in (0, 1)]
    return ratios, gains, np.sum(worse), known.mean()


#: The published setting, and one of a broad spectrum: relative errors of V4 and K1 of a calculation of
#: its own, to second order with the start.
TABLE = {
    ("tanh", 8): (-6.1e-5, -5.6e-3),
    ("tanh", 16): (-6.9e-6, -1.1e-3),
    ("tanh", 32): (-3.0e-7, -8.2e-5),
    ("erf", 8): (-8.8e-6, -4.5e-3),
    ("erf", 16): (-2.3e-6, -1.9e-3),
    ("erf", 32): (-3.0e-7, -4.1e-4),
}
SETTINGS = {"tanh": (2.0, 2.0, 0.0, 2.0), "erf": (4.0, 1.5, 0.0, 1.0)}
