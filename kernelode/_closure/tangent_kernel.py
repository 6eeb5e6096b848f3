"""The neural tangent kernel of infinite width, beside the mean kernel.

With lambda_W, lambda_b the learning rates of a layer h' = W sigma(h) + b, and independent layers,

    K' = C_b + C_W E[sigma_a sigma_b],
    Theta' = lambda_b + lambda_W E[sigma_a sigma_b] + C_W E[sigma'_a sigma'_b] Theta

(Jacot, Gabriel & Hongler, arXiv:1806.07572, theorem 1; Roberts, Yaida & Hanin, arXiv:2106.10165, eq.
8.5). A block of several layers is their composition, with K and Theta of the stream at its beginning,
and joins the stream as Theta <- skip^2 Theta + scale^2 Theta_block: in continuous depth dTheta/dt =
Theta_block(K, Theta). The last term of Theta' is the derivative of K' by the covariances, in the
direction of Theta.
"""

from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._architecture import AbstractArchitecture, AbstractResidualNetwork, checked_layered
from .._architecture.rates import LearningRates, RatedLayer
from .._kernel import AbstractKernel, Block, as_triangle, checked_kernel
from .._support.checks import as_real_array, instance
from .._support.custom_types import RealLike
from .base import AbstractTangentClosure


class TangentState(eqx.Module):
    """K0, and Theta of its `entries`."""

    kernel: AbstractKernel
    tangent: Float[Array, "*entries"]


class TangentReadOut(NamedTuple):
    """K0 and Theta of the network's output, were the read-out placed at each of the saved depths. (times,
    n, m)."""

    mean_kernel: Float[Array, "*times n m"]
    tangent_kernel: Float[Array, "*times n m"]


class TangentKernel(AbstractTangentClosure):
    """The mean kernel and the neural tangent kernel, at infinite width.

    Of networks of plain layers, feed-forward or residual, with any number of them in a block; of a
    `Block` too, row inputs against column inputs. `Solution.tangent_kernel` has Theta of the stream at
    the saved depths, `Solution.read_out` that of the network's output: *the* NTK of the network is
    `read_out.tangent_kernel[-1]`.

    **Arguments**

    - `rates`: the `LearningRates`; by default those of the NTK parametrisation.
    - `tangent`: Theta of the layer whose kernel is given, of the shape of that kernel. By default that of
        the network's read-in.

    **Raises** `TypeError` for networks that are not made of plain layers, `ValueError` for a `tangent` of
    another shape or rates of another depth.
    """

    rates: LearningRates
    tangent: Float[Array, "n m"] | None

    def __init__(self, rates: LearningRates | None = None, tangent: RealLike | None = None):
        rates = LearningRates() if rates is None else rates
        self.rates = instance("rates", rates, LearningRates, "`LearningRates(weight=1.0)`")
        self.tangent = None if tangent is None else as_real_array("tangent", tangent)

    def prepare(
        self, network: AbstractArchitecture, kernel: Array | Block, ts: Array | None = None
    ) -> "TangentKernel":
        checked_layered(network, "Tangent kernels")
        if self.tangent is None:
            return self
        shape = kernel.cross.shape if isinstance(kernel, Block) else kernel.shape
        if self.tangent.shape != shape:
            raise ValueError(
                f"`tangent` must have the shape of the kernel, {shape}; got {self.tangent.shape}."
            )
        if not isinstance(kernel, Block):
            checked_kernel(self.tangent, "tangent")
        return self

    def layers(self, network: AbstractArchitecture) -> RatedLayer:
        return self.rates.layers(network)

    def flow_layer(self, network: AbstractResidualNetwork) -> RatedLayer:
        return self.rates.flow_layer(network)

    def init(self, network: AbstractArchitecture, kernel: Float[Array, "n n"] | Block) -> TangentState:
        own = kernel if isinstance(kernel, Block) else as_triangle(kernel)
        if self.tangent is None:
            return TangentState(own, self.rates.read_in(network, own))
        given = self.tangent if isinstance(own, Block) else as_triangle(self.tangent).cross
        return TangentState(own, given)

    def rate(self, network: AbstractArchitecture, state: TangentState, layer: RatedLayer) -> TangentState:
        return _block(network, state, layer)

    def push(self, network: AbstractArchitecture, state: TangentState, layer: RatedLayer) -> TangentState:
        step = lambda old, new: layer.skip**2 * old + layer.scale**2 * new
        return jax.tree.map(step, state, _block(network, state, layer))

    def mean_kernel(self, state: TangentState) -> Float[Array, "n m"]:
        return state.kernel.matrix()

    def kernel(self, state: TangentState) -> AbstractKernel:
        return state.kernel

    def tangent_kernel(self, state: TangentState) -> Float[Array, "n m"]:
        return state.kernel.table(state.tangent)

    def read_out(self, network: AbstractArchitecture, state: TangentState) -> TangentReadOut:
        out = _affine(network, state, self.rates.read_out_layer(network))
        return TangentReadOut(self.mean_kernel(out), self.tangent_kernel(out))


def _block(network: AbstractArchitecture, state: TangentState, layer: RatedLayer) -> TangentState:
    """The kernels of a residual block, or of a feed-forward layer."""
    for _ in range(checked_layered(network, "Tangent kernels").layers_per_block):
        state = _affine(network, state, layer)
    return state


def _affine(network: AbstractArchitecture, state: TangentState, layer: RatedLayer) -> TangentState:
    """K' and Theta' of one fully connected layer."""
    kernel, activation = state.kernel, network.activation
    along = (kernel.perturbation(state.tangent),)
    after, through = jax.jvp(lambda k: layer.affine(activation, k), (kernel,), along)
    return TangentState(after, layer.rates(activation, kernel).entries + through.entries)
