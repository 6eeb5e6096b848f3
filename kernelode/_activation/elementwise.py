"""A user's own activation."""

import math
from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from .._custom_types import RealLike
from .base import AbstractActivation, AbstractKinkedActivation, AbstractSmoothActivation
from .probe import probed_scales


class SmoothElementwise(AbstractSmoothActivation):
    """An analytic function of the user's; made by `Elementwise(fn)`."""

    fn: Callable[[Array], Array]
    found_scales: tuple[tuple[float, float], ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.fn(x)

    @property
    def scales(self) -> tuple[tuple[float, RealLike], ...]:
        return self.found_scales


class KinkedElementwise(AbstractKinkedActivation):
    """A function of the user's with kinks; made by `Elementwise(fn, kinks=...)`."""

    fn: Callable[[Array], Array]
    kink_positions: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.fn(x)

    @property
    def kinks(self) -> tuple[float, ...]:
        return self.kink_positions


def Elementwise(fn: Callable[[Array], Array], kinks: tuple[float, ...] = ()) -> AbstractActivation:
    """A user's own activation sigma = fn.

    **Arguments**

    - `fn`: maps an array to an array of the same shape, elementwise, in `jax.numpy`. Analytic but at
        `kinks`. To sweep or differentiate parameters, make it an `equinox.Module` with a
        `__call__`: its arrays are traced. (A plain function is compared by identity: define it
        once, since a fresh lambda is compiled anew.)
    - `kinks`: where the first derivative jumps. A kink that is not declared costs digits, which
        the reported error estimates then show.

    A smooth function is sampled once, here, to find how narrow its features are and where (up to |x| =
    64, down to a width of 1/256); integration nodes are placed by that.

    **Raises** `TypeError` if `fn` is not callable, `ValueError` if a kink is not finite.
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be callable, got {fn!r}.")
    positions = tuple(sorted({float(kink) for kink in kinks}))
    if not all(math.isfinite(kink) for kink in positions):
        raise ValueError(f"`kinks` must be finite numbers, got {kinks!r}.")
    return KinkedElementwise(fn, positions) if positions else SmoothElementwise(fn, probed_scales(fn))
