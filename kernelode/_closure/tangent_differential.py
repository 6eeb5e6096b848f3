"""The differential of the tangent kernel of single inputs, in feed-forward networks to order 1/n.

With the learning rates lambda_theta of the tangent kernel H, the differential is

    dH_i;jk = sum over theta, theta' of lambda_theta lambda_theta' (d^2 z_i / dtheta dtheta')
              (dz_j / dtheta) (dz_k / dtheta'),
    E[dH_i;jk z_l] = (delta_il delta_jk P + (delta_ij delta_kl + delta_ik delta_jl) Q) / n

(Roberts, Yaida & Hanin, arXiv:2106.10165, chapter 11). P and Q of a layer follow from those of the layer
before, and from F = n E[z_i z_j H_ij] and B = n E[H_ij^2], i != j. Of one input, w the relative width of
the layer before, <.> the expectation at the variance K:

    F' = C_W^2 (<s^2 s'^2> Theta / w + r^2 F),    r = <(s s')'> = <s'^2> + <s s''>
    B' = C_W^2 (<s'^4> Theta^2 / w + <s'^2>^2 B)
    P' = C_W^2 (<s s'' s'^2> Theta^2 / w + <s'^2> (r P + <s s''> B))
    Q' = C_W (C_W <s s'^2 s''> Theta^2 + lambda_W <s^2 s'^2> Theta) / w
         + C_W r (C_W <s'^2> Q + (lambda_W r + C_W Theta <(s' s'')'>) F).

They are moments of one larger network whose neurons are (z, y, y~, u), with y the tangents along two
independent normal directions of the parameters and u the second derivative of z along both: dH z is the
mean of u y y~ z over the directions.
"""

from typing import NoReturn

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractHomogeneousActivation,
    AbstractKinkedActivation,
)
from .._architecture import AbstractArchitecture, AbstractResidualNetwork
from .._architecture.rates import LearningRates, RatedLayer
from .._architecture.start import GaussianRows
from .._expectation.input_chaos import has_kinks
from .._expectation.moments import Estimate
from .._expectation.single import Factors, joint_moments
from .._kernel import Block
from .._numerics.safe import safe_divide, safe_root
from .._support.checks import positive_integer
from .._support.custom_types import RealLike
from .base import AbstractTangentClosure, check_supported
from .tangent_kernel import TangentKernel, TangentState

#: The expectations of a layer, by the derivatives of sigma in the product.
_FACTORS: tuple[Factors, ...] = ((1, 1), (0, 2), (2, 2), (1, 3), (0, 0, 1, 1), (1, 1, 1, 1), (0, 1, 1, 2))


class DifferentialState(eqx.Module):
    """K0 and Theta, and of every input by itself F, B, P and Q."""

    kernels: TangentState
    cross: Float[Array, " n"]
    exchange: Float[Array, " n"]
    P: Float[Array, " n"]
    Q: Float[Array, " n"]


class DifferentialMoments(eqx.Module):
    """The differential dH of the tangent kernel H at large width n, of every input by itself (Roberts,
    Yaida & Hanin, arXiv:2106.10165, chapter 11).

    - `mean_kernel`, `tangent_kernel`: K0 and Theta, (n, n).
    - `cross`, `exchange`: F = n E[z_i z_j H_ij] and B = n E[H_ij^2], i != j, (n,).
    - `P`, `Q`: n E[dH_i;jk z_l] = delta_il delta_jk P + (delta_ij delta_kl + delta_ik delta_jl) Q, (n,).
    - `kinks`: whether the activation has any. Static.

    Of a layer's preactivations z, or of a read-out.
    """

    mean_kernel: Float[Array, "*times n n"]
    tangent_kernel: Float[Array, "*times n n"]
    cross: Float[Array, "*times n"]
    exchange: Float[Array, "*times n"]
    P: Float[Array, "*times n"]
    Q: Float[Array, "*times n"]
    kinks: bool = eqx.field(static=True)

    def tangent_change(self, outputs: int = 1) -> Float[Array, "*times n"]:
        """n dE[H_ii] / d eta at the first step of gradient descent with the rate eta,

            theta <- theta - eta lambda_theta d/dtheta sum_i (z_i - y_i)^2 / 2,

        on the input alone, at any targets y: -2 (P + (outputs + 1) Q), at leading order. E[H_ij] = 0
        stays for i != j. The outputs' mean then is, with Theta1 as in `TangentMoments`,

            E[z_i] = y_i (eta (Theta + Theta1 / n) + eta^2 tangent_change / 2n) + O(eta^3).

        **Arguments**

        - `outputs`: how many neurons the loss is a sum over.

        **Raises** `ValueError` for activations with kinks: a step moves neurons across them, which
        changes E[H_ii] at order n^(-1/2).
        """
        outputs = positive_integer("outputs", outputs)
        if self.kinks:
            raise ValueError(
                "`tangent_change` needs an activation without kinks: a step of gradient descent moves "
                "neurons across them, which changes the tangent kernel by more than `P` and `Q` have."
            )
        return -2 * (self.P + (outputs + 1) * self.Q)


class TangentDifferential(AbstractTangentClosure):
    """K0, Theta, and P and Q, the correlation of the tangent kernel's differential (dNTK) with the
    network's function, at order 1/n: how the tangent kernel begins to change in training.

    For feed-forward networks, of every input by itself. `Solution.differential` has the
    `DifferentialMoments` of the saved layers, `Solution.read_out` those of the network's output. The
    second differential is not there, so the change of the tangent kernel is known to first order in
    the learning rate.

    For ReLU and its kind <s s''>, <s s'' s'^2> and <(s' s'')'> vanish, delta functions at zero included,
    so P does; P and Q are then no change of the tangent kernel in a step
    (`DifferentialMoments.tangent_change`).

    **Arguments**

    - `rates`, `tangent`: as in `TangentKernel`.

    **Raises** `ValueError` for residual networks and for other activations with kinks, `TypeError` for
    networks that are not made of plain layers and for a `Block`.
    """

    base: TangentKernel

    def __init__(self, rates: LearningRates | None = None, tangent: RealLike | None = None):
        self.base = TangentKernel(rates, tangent)

    def prepare(
        self, network: AbstractArchitecture, kernel: Array | Block, ts: Array | None = None
    ) -> "TangentDifferential":
        if isinstance(kernel, Block):
            raise TypeError(
                "`kernel` must be a square matrix for `TangentDifferential`: the differential is known "
                "for inputs by themselves; of a `Block` `TangentKernel` has the tangent kernel."
            )
        self.base.prepare(network, kernel, ts)
        check_supported(network, GaussianRows())
        if isinstance(network, AbstractResidualNetwork):
            self._refuse_streams()
        if isinstance(network.activation, AbstractKinkedActivation):
            raise ValueError(
                "`TangentDifferential` needs sigma'', which is no function for an activation with kinks; "
                "of those only positively homogeneous ones, such as `ReLU()`, are covered."
            )
        return self

    def layers(self, network: AbstractArchitecture) -> RatedLayer:
        return self.base.layers(network)

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"]) -> DifferentialState:
        zero = jnp.zeros(kernel.shape[:1], kernel.dtype)
        return DifferentialState(self.base.init(network, kernel), zero, zero, zero, zero)

    def rate(
        self, network: AbstractArchitecture, state: DifferentialState, layer: RatedLayer
    ) -> NoReturn:
        self._refuse_streams()

    def push(
        self, network: AbstractArchitecture, state: DifferentialState, layer: RatedLayer
    ) -> DifferentialState:
        q, theta = state.kernels.kernel.variances, jnp.diagonal(self.tangent_kernel(state))
        found = _moments(network.activation, q, _FACTORS)
        e = {factors: estimate.value for factors, estimate in found.items()}
        weight = layer.scale**2 * layer.affine.weight_variance
        rate = layer.scale**2 * layer.rates.weight_variance
        slopes, bend = e[1, 1], e[0, 2]
        r = slopes + bend
        mixed = e[0, 0, 1, 1] * theta / layer.width
        curved = weight**2 * e[0, 1, 1, 2] * theta**2 / layer.width
        driven = rate * r + weight * theta * (e[2, 2] + e[1, 3])
        return DifferentialState(
            kernels=self.base.push(network, state.kernels, layer),
            cross=weight**2 * (mixed + r**2 * state.cross),
            exchange=weight**2 * (e[1, 1, 1, 1] * theta**2 / layer.width + slopes**2 * state.exchange),
            P=curved + weight**2 * slopes * (r * state.P + bend * state.exchange),
            Q=curved
            + weight * rate * mixed
            + weight * r * (weight * slopes * state.Q + driven * state.cross),
        )

    def mean_kernel(self, state: DifferentialState) -> Float[Array, "n n"]:
        return self.base.mean_kernel(state.kernels)

    def tangent_kernel(self, state: DifferentialState) -> Float[Array, "n n"]:
        return self.base.tangent_kernel(state.kernels)

    def differential(
        self, network: AbstractArchitecture, state: DifferentialState
    ) -> DifferentialMoments:
        """Of a state."""
        return DifferentialMoments(
            self.mean_kernel(state),
            self.tangent_kernel(state),
            state.cross,
            state.exchange,
            state.P,
            state.Q,
            has_kinks(network.activation),
        )

    def read_out(self, network: AbstractArchitecture, state: DifferentialState) -> DifferentialMoments:
        out = self.base.rates.read_out_layer(network)
        return self.differential(network, self.push(network, state, out))

    def quadrature_error(
        self, network: AbstractArchitecture, state: DifferentialState
    ) -> Float[Array, ""]:
        q = state.kernels.kernel.variances
        of_kernels = self.base.quadrature_error(network, state.kernels)
        return jnp.maximum(of_kernels, jnp.max(_relative_errors(network.activation, q)))

    def _refuse_streams(self) -> NoReturn:
        raise ValueError(
            "The differential of the tangent kernel is known for feed-forward networks such as `MLP`; "
            "for residual networks `TangentTower` has the statistics of the tangent kernel."
        )


def _moments(
    activation: AbstractActivation, q: Float[Array, " n"], products: tuple[Factors, ...]
) -> dict[Factors, Estimate]:
    """<sigma^(i) sigma^(j) ...> of the products. Of homogeneous activations sigma'' is a delta function
    at zero, where sigma vanishes; <(s' s'')'> = d<s'^2>/dq vanishes as <s'^2> is constant."""
    found = dict.fromkeys(products, Estimate(jnp.zeros_like(q), jnp.zeros_like(q)))
    homogeneous = isinstance(activation, AbstractHomogeneousActivation)
    known = tuple(factors for factors in found if not homogeneous or max(factors) <= 1)
    joint = joint_moments(activation, q, known)
    return found | {factors: Estimate(*one) for factors, *one in zip(known, *joint)}


def _relative_errors(activation: AbstractActivation, q: Float[Array, " n"]) -> Float[Array, "products n"]:
    """Estimates of the errors of `_FACTORS`, relative to what bounds them by the Cauchy-Schwarz
    inequality: <s s' s' s''>^2 <= <(s s')^2> <(s' s'')^2>."""
    halves = [(factors[::2], factors[1::2]) for factors in _FACTORS]
    square = lambda half: tuple(sorted(2 * half))
    squares = tuple(square(half) for pair in halves for half in pair)
    found = _moments(activation, q, _FACTORS + squares)
    root = lambda half: safe_root(found[square(half)].value)
    sizes = [root(left) * root(right) for left, right in halves]
    return jnp.stack([safe_divide(found[f].error, size) for f, size in zip(_FACTORS, sizes)])
