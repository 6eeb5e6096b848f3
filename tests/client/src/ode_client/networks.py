"""Networks and activations, one of them of the project's own."""

import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernelode as ko

from .untyped import array, with_leaf


class Mish(ko.AbstractSmoothActivation):
    """x tanh(log(1 + exp(sharpness x))), in terms of what JAX has."""

    sharpness: Float[Array, ""]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x * jnp.tanh(jax.nn.softplus(self.sharpness * x))


class HardTanh(ko.AbstractKinkedActivation):
    """x, but never beyond one."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.clip(x, -1.0, 1.0)

    @property
    def kinks(self) -> tuple[float, ...]:
        return (-1.0, 1.0)


class Square(ko.AbstractClosedFormActivation):
    """x^2, for which E[x^2 y^2] = a b + 2 c^2."""

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return x**2

    def second_moment(
        self, a: Float[Array, "*shape"], b: Float[Array, "*shape"], c: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        return a * b + 2 * c**2


def activations() -> dict[str, ko.AbstractActivation]:
    """One of every kind."""
    own: list[ko.AbstractActivation] = [Mish(array(1.0)), HardTanh(), Square()]
    shipped: list[ko.AbstractActivation] = [
        ko.Erf(),
        ko.GELU(),
        ko.LeakyReLU(0.1),
        ko.Linear(),
        ko.Polynomial([0.0, 1.0, 0.5]),
        ko.Polynomial.monomial(2),
        ko.ReLU(),
        ko.Sin(1.2),
        ko.Softplus(2.0),
        ko.Swish(sharpness=1.5),
        ko.Tanh(),
        ko.Elementwise(jnp.arctan),
        ko.Elementwise(jnp.abs, kinks=(0.0,)),
    ]
    return {f"{number} {activation}": activation for number, activation in enumerate([*own, *shipped])}


def slopes(activation: ko.AbstractActivation) -> tuple[float, float] | None:
    """Of a homogeneous activation."""
    if not isinstance(activation, ko.AbstractHomogeneousActivation):
        return None
    negative, positive = activation.slopes
    return float(negative), float(positive)


def networks() -> tuple[ko.ResNet, ko.MLP]:
    """A residual and a feed-forward network."""
    residual = ko.ResNet(
        Mish(array(1.0)),
        depth=3,
        residual_scale=[0.3, 0.4, 0.5],
        weight_variance=1.2,
        bias_variance=0.05,
        skip_scale=1.0,
    )
    forward = ko.MLP(ko.Tanh(), 2, weight_variance=1.5, relative_width=[1.0, 2.0, 1.0])
    return with_leaf(residual, lambda n: n.weight_variance, array(1.4)), forward


def kind_of(activation: ko.AbstractActivation) -> str:
    """Which of its declarations saves most work."""
    if isinstance(activation, ko.AbstractAutonomousActivation):
        return f"autonomous, of degree {len(activation.slope_polynomial) - 1}"
    if isinstance(activation, ko.AbstractStraightActivation):
        return f"straight, {activation.lines[1][0]}"
    return "odd" if isinstance(activation, ko.AbstractOddActivation) else "other"


def depth_of(network: ko.AbstractArchitecture) -> tuple[int, float]:
    """What every network has, and what residual ones have besides."""
    scale = 0.0
    if isinstance(network, ko.AbstractResidualNetwork):
        scale = float(jnp.max(network.residual_scale))
    return network.depth, scale


def layer_of(network: ko.AbstractLayered, number: int) -> tuple[ko.Layer, Float[Array, ""]]:
    """One layer, and C_W E[sigma^2] + C_b of it at variance one."""
    layer: ko.Layer = jax.tree.map(operator.itemgetter(number), network.layers())
    affine: ko.Affine = layer.affine
    return layer, affine(network.activation, ko.Variances(array(1.0))).values
