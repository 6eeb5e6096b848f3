"""What a batch of random networks is drawn from."""

import equinox as eqx
from jaxtyping import Array, Float

from .._architecture import AbstractLayered, AbstractResidualNetwork
from .._architecture.rates import RatedLayer
from ._elements import Elements, elements_of
from ._network import Data
from ._plan import Plan
from ._reference import Reference
from ._sampler import AbstractSampler

#: Sums over a batch, by name; leading axis: the layers that are measured.
Sums = dict[str, Array]


class TangentDraw(eqx.Module):
    """What tangent kernels are made with.

    - `layers`, `read_out`: the network's, with their learning rates.
    - `start`: Theta of the read-in.
    - `limit`: Theta of infinite width, read out at layers 0 .. depth.
    """

    layers: RatedLayer
    read_out: RatedLayer
    start: Float[Array, "inputs inputs"]
    limit: Float[Array, "layers element"]


class Draw(eqx.Module):
    """Everything a batch needs besides its PRNG key.

    - `start`: the factor A of K^0 = A A^T, or data.
    - `tangents`: changes of A by which responses are measured.
    - `widths`: n_l of layers 0 .. depth.
    - `tangent_kernel`: if it is measured too.
    """

    network: AbstractLayered
    sampler: AbstractSampler
    start: Array | Data
    tangents: Array | None
    widths: Array
    reference: Reference
    tangent_kernel: TangentDraw | None
    plan: Plan = eqx.field(static=True)

    @property
    def residual(self) -> bool:
        return isinstance(self.network, AbstractResidualNetwork)

    @property
    def elements(self) -> Elements:
        return elements_of(self.plan.inputs, pairs=self.plan.pairs)
