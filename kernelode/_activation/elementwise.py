"""A user's own activation."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._support.checks import checked_function, described, is_concrete, reason
from .._support.custom_types import RealLike
from .base import AbstractActivation, AbstractKinkedActivation, AbstractSmoothActivation
from .probe import probed_scales

#: Where a function is tried: no two alike, of both signs, none near a kink of the common activations.
_TRIED = [-1.7, 0.4, 2.3]


class SmoothElementwise(AbstractSmoothActivation):
    """An analytic function of the user's; made by `Elementwise(fn)`."""

    fn: Callable[[Array], Array]
    found_scales: tuple[tuple[float, float], ...] = eqx.field(static=True, repr=False)

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

    **Raises** `TypeError` if `fn` is not callable, raises itself, or does not return an array of the
    shape and dtype of its argument; `ValueError` if it mixes elements or a kink is not finite.
    """
    checked_function("fn", fn, "jnp.sin")
    _check_elementwise(fn)
    try:
        positions = tuple(sorted({float(kink) for kink in kinks}))
    except (TypeError, ValueError) as error:
        raise TypeError(f"`kinks` must be a list of numbers, got {described(kinks)}.") from error
    if not all(math.isfinite(kink) for kink in positions):
        raise ValueError(f"`kinks` must be finite numbers, got {kinks!r}.")
    return KinkedElementwise(fn, positions) if positions else SmoothElementwise(fn, probed_scales(fn))


def _check_elementwise(fn: Callable[[Array], Array]) -> None:
    """Refuse what is no function of one number, applied elementwise: by its shape, and by trying it."""
    x = jnp.asarray(_TRIED)
    fn = jax.tree.map(lambda p: p.astype(x.dtype) if eqx.is_inexact_array(p) else p, fn)
    try:
        out = jax.eval_shape(lambda x: fn(x), x)
    except Exception as error:
        said = f"`fn` must map arrays to arrays of their shape, but raised: {reason(error)}"
        raise TypeError(said) from error
    if getattr(out, "shape", None) != x.shape or out.dtype != x.dtype:
        found = f"{out.dtype}{list(out.shape)}" if hasattr(out, "shape") else described(out)
        raise TypeError(
            "`fn` must return an array of the shape and dtype of its argument, "
            f"{x.dtype}{list(x.shape)}; it returned {found}."
        )
    each = [slice(k, k + 1) for k in range(len(_TRIED))]
    with jax.ensure_compile_time_eval():
        together, apart = jax.jit(lambda x: (fn(x), jnp.concatenate([fn(x[k]) for k in each])))(x)
    if not all(is_concrete(y) for y in (together, apart)):
        return  # its parameters are traced: there are no numbers yet
    together, apart = np.asarray(together), np.asarray(apart)
    near = np.isclose(together, apart, rtol=1e-3, atol=1e-6, equal_nan=True)
    if not near.all():
        raise ValueError(
            f"`fn` must be elementwise, but its value at {np.asarray(x)[~near][0]:.3g} depends on the "
            f"other elements: {together[~near][0]:.3g} beside them, {apart[~near][0]:.3g} alone."
        )
