"""The activations of `neural_tangents.stax`, under their names and with their arguments, as ours."""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from jaxtyping import Array, Float

from .._activation import (
    GELU,
    AbstractActivation,
    AbstractHomogeneousActivation,
    Elementwise as Own,
    Erf as OwnErf,
    LeakyReLU,
    Polynomial as OwnPolynomial,
    ReLU,
    Sin as OwnSin,
    Softplus,
    Swish,
    Tanh,
)
from .._activation.homogeneous import homogeneous_second_moment
from .._support.checks import as_real_array, scalar

NAMES = (
    *("ABRelu", "Abs", "Cos", "Elementwise", "ElementwiseNumerical", "Erf", "Gabor", "Gaussian", "Gelu"),
    *("LeakyRelu", "Monomial", "Polynomial", "Rbf", "Relu", "Sigmoid_like", "Sin"),
)

#: Functions that we know by name: with a closed form, a symmetry or a parameter to sweep.
_KNOWN: list[tuple[Callable[..., Any], Callable[[], AbstractActivation]]] = [
    (jnp.tanh, Tanh),
    (jnp.sin, OwnSin),
    (jax.scipy.special.erf, OwnErf),
    (jax.lax.erf, OwnErf),
    (jax.nn.relu, ReLU),
    (jax.nn.softplus, Softplus),
    (jax.nn.silu, Swish),
]


class TwoSlopes(AbstractHomogeneousActivation):
    """sigma(x) = negative x for x < 0, positive x for x > 0."""

    negative: Float[Array, ""]
    positive: Float[Array, ""]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.where(x > 0, self.positive.astype(x.dtype), self.negative.astype(x.dtype)) * x

    @property
    def slopes(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return self.negative, self.positive

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        return homogeneous_second_moment(*self.slopes, a, b, c)


class Affine(eqx.Module):
    """x -> output fn(inner x + phase) + shift: a function for `Elementwise`, its numbers traced."""

    fn: Callable[[Array], Array]
    output: Float[Array, ""]
    inner: Float[Array, ""]
    phase: Float[Array, ""]
    shift: Float[Array, ""]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        output, inner, phase, shift = (
            number.astype(x.dtype) for number in (self.output, self.inner, self.phase, self.shift)
        )
        return output * self.fn(inner * x + phase) + shift


def _affine(fn, output, inner, *, phase: Any = 0.0, shift: Any = 0.0) -> AbstractActivation:
    numbers = (scalar("a", output), scalar("b", inner), scalar("c", phase), scalar("c", shift))
    return Own(Affine(fn, *numbers))


def Erf(a: Any = 1.0, b: Any = 1.0, c: Any = 0.0) -> AbstractActivation:
    if (a, b, c) == (1, 1, 0):
        return OwnErf()
    return _affine(jax.scipy.special.erf, a, b, shift=c)


def Sigmoid_like() -> AbstractActivation:
    return Erf(a=0.5, b=1 / 2.4020563531719796, c=0.5)


def Sin(a: Any = 1.0, b: Any = 1.0, c: Any = 0.0) -> AbstractActivation:
    if (a, c) == (1, 0):
        return OwnSin(b)
    return _affine(jnp.sin, a, b, phase=c)


def Cos(a: Any = 1.0, b: Any = 1.0, c: Any = 0.0) -> AbstractActivation:
    return Sin(a=a, b=b, c=c + np.pi / 2)


def Rbf(gamma: float = 1.0) -> AbstractActivation:
    return Sin(a=2**0.5, b=(2 * gamma) ** 0.5, c=np.pi / 4)


def _gabor(x: Array) -> Array:
    return jnp.exp(-(x**2)) * jnp.sin(x)


def _bell(x: Array) -> Array:
    return jnp.exp(-(x**2))


def Gabor() -> AbstractActivation:
    return Own(_gabor)


def Gaussian(a: Any = 1.0, b: Any = -1.0) -> AbstractActivation:
    if b > 0:
        raise ValueError(f"`stax.Gaussian` with b = {b} > 0 has no finite kernel at large variances.")
    return _affine(_bell, a, (-b) ** 0.5)


def ABRelu(a: Any, b: Any, do_stabilize: bool = False) -> AbstractActivation:
    del do_stabilize  # a matter of their arithmetic: the kernel is the same
    if b == 1:
        return ReLU() if a == 0 else LeakyReLU(a)
    return TwoSlopes(scalar("a", a), scalar("b", b))


def Relu(do_stabilize: bool = False) -> AbstractActivation:
    return ABRelu(0, 1, do_stabilize)


def LeakyRelu(alpha: Any, do_stabilize: bool = False) -> AbstractActivation:
    return ABRelu(alpha, 1, do_stabilize)


def Abs(do_stabilize: bool = False) -> AbstractActivation:
    return ABRelu(-1, 1, do_stabilize)


def Gelu(approximate: bool = False) -> AbstractActivation:
    if approximate:
        raise ValueError(
            "`stax.Gelu(approximate=True)` has no counterpart: its `apply_fn` takes the tanh "
            "approximation and its `kernel_fn` the exact function. kernelode has the exact one."
        )
    return GELU()


def Polynomial(coef: Any) -> AbstractActivation:
    return OwnPolynomial(as_real_array("coef", coef))


def Monomial(degree: int) -> AbstractActivation:
    return OwnPolynomial.monomial(degree)


def ElementwiseNumerical(fn: Any, deg: int, df: Any = None) -> AbstractActivation:
    del deg, df  # ours has a rule and derivatives of its own
    return _of_function("ElementwiseNumerical", fn)


def Elementwise(fn: Any = None, nngp_fn: Any = None, d_nngp_fn: Any = None) -> AbstractActivation:
    del nngp_fn, d_nngp_fn  # integrated here from `fn`, with all derivatives
    if fn is None:
        raise ValueError(
            "`stax.Elementwise` without `fn` has no counterpart: kernelode computes every expectation "
            "from the activation itself."
        )
    return _of_function("Elementwise", fn)


def _of_function(name: str, fn: Any) -> AbstractActivation:
    if isinstance(fn, AbstractActivation):
        return fn
    if not callable(fn):
        raise TypeError(f"`stax.{name}` needs a function, got {fn!r}.")
    for known, make in _KNOWN:
        if fn is known:
            return make()
    return Own(cast(Callable[[Array], Array], fn))
