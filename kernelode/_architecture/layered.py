"""Networks made of plain layers W sigma(h) + b, whose moments at finite width are known."""

from typing import ClassVar, final

import equinox as eqx

from .base import AbstractArchitecture
from .layer import Kernel, Layer


class AbstractLayered(AbstractArchitecture):
    """A network whose blocks are layers W sigma(.) + b of one activation, `layers_per_block` of them,
    each with weights of its own and the variances of the block's `Layer.affine`.

    Moments of order 1/n, simulations and `baselines` know these networks, and no others: their drift is
    Q = (C_W E[sigma sigma] + C_b), `layers_per_block` times over.
    """

    layers_per_block: eqx.AbstractVar[int]

    _follows: ClassVar[tuple[str, ...]] = ("drift",)

    @final
    def drift(self, kernel: Kernel, layer: Layer) -> Kernel:
        for _ in range(self.layers_per_block):
            kernel = layer.affine(self.activation, kernel)
        return kernel


def checked_layered(network: AbstractArchitecture, what: str) -> AbstractLayered:
    """The network, if it is made of plain layers.

    **Raises** `TypeError` if it is not.
    """
    if not isinstance(network, AbstractLayered):
        raise TypeError(
            f"{what} are known for networks of layers W sigma(h) + b: `ResNet`, `MLP` and an "
            f"`AbstractLayered` of your own; {type(network).__name__} has a `drift` of its own."
        )
    return network
