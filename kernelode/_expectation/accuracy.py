"""How well expectations are known at given variances: what results say of themselves."""

import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_any
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractClosedFormActivation,
    AbstractKinkedActivation,
    AbstractStraightActivation,
)
from .._kernel import AbstractKernel, Block, Variances
from .._numerics.safe import safe_divide
from .._support.trees import as_constant
from .mehler import POOR, moment_table, plane_errors, series_service, table_indices
from .moments import pair_moments, variance_derivatives, variance_moment
from .variance import integrate_ladder

#: Relative errors of expectations above which a result is `RESULTS.inaccurate`.
_TOLERANCES = {jnp.dtype("float64"): 1e-6, jnp.dtype("float32"): 1e-3}


def tolerance(dtype: DTypeLike) -> float:
    """The relative error of expectations above which results say so: 1e-6 in float64, 1e-3 in float32."""
    return _TOLERANCES[jnp.dtype(dtype)]


def has_known_accuracy(activation: AbstractActivation) -> bool:
    """Whether expectations are right at every variance: by a formula, or by rules tested for the
    activation."""
    return isinstance(activation, AbstractClosedFormActivation | AbstractStraightActivation)


def expectation_error(
    activation: AbstractActivation, q: Float[Array, " n"], order: int = 0
) -> Float[Array, ""]:
    """An estimate of the relative error of E[sigma^2] and of its first `order` derivatives with respect
    to the variance, the largest of the variances `q`; a constant to differentiation.

    Of closed forms it is rounding; pairs of other activations are computed to 1e-9 (float32: 1e-4) or
    better whatever the inputs.
    """
    rounding = 64 * float(jnp.finfo(q.dtype).eps)
    if isinstance(activation, AbstractClosedFormActivation):
        return jnp.asarray(rounding, q.dtype)
    floor = jnp.asarray(max(rounding, POOR[q.dtype]), q.dtype)
    if isinstance(activation, AbstractStraightActivation):
        return floor
    value, error = integrate_ladder(order, as_constant(activation), jax.lax.stop_gradient(q))
    return jnp.maximum(floor, jnp.max(safe_divide(error, jnp.abs(value))))


def kernel_error(activation: AbstractActivation, kernel: AbstractKernel) -> Float[Array, ""]:
    """An estimate of the error of E[sigma_a sigma_b] relative to sqrt(E[sigma_a^2] E[sigma_b^2]), the
    largest of all inputs and pairs of a kernel."""
    q = kernel.variances
    own = variance_derivatives(activation, q)
    size = jnp.abs(own.value[0])
    alone = jnp.max(safe_divide(own.error[0], size))
    if isinstance(kernel, Variances):
        return alone
    a, b, c = _tables(kernel)
    rows, columns = (jnp.sqrt(x) for x in (size[: a.shape[0]], size[-b.shape[0] :]))
    error = pair_moments(activation, a, b, c)[0, 0].error
    if not isinstance(kernel, Block):  # an input with itself is no pair
        error = jnp.where(np.eye(q.shape[0], dtype=bool), 0, error)
    return jnp.maximum(alone, _relative(error, rows, columns))


def pairs_error(
    activation: AbstractActivation, kernel: AbstractKernel, order: int = 0
) -> Float[Array, ""]:
    """An estimate of the relative error of E[sigma_a sigma_b], and for `order` one of its derivative
    E[sigma'_a sigma'_b] too, the largest of all pairs of a kernel. A constant to differentiation.

    No series is summed again: what it leaves out follows from the spectra of the inputs. What the plane
    serves is integrated again, each pair of a symmetric kernel once.
    """
    if has_known_accuracy(activation) or isinstance(kernel, Variances):
        return jnp.zeros((), kernel.dtype)
    activation = as_constant(activation)
    a, b, c = jax.lax.stop_gradient(_tables(kernel))
    pairs = np.ones(c.shape, bool) if isinstance(kernel, Block) else np.triu(np.ones(c.shape, bool), 1)
    service = series_service(order, activation, jax.lax.stop_gradient(kernel.variances), c)
    by_plane = service.by_plane & pairs

    def over_plane() -> Float[Array, ""]:
        if isinstance(activation, AbstractKinkedActivation):
            found = pair_moments(activation, a, b, c, order)
            errors = [found[r, r].error for r in range(order + 1)]
        else:
            table = dict(zip(table_indices(order), plane_errors(order, activation, a, b, c, by_plane)))
            errors = [table[r, r] for r in range(order + 1)]
        relative = [
            _relative(jnp.where(by_plane, error, 0), _scale(activation, a, r), _scale(activation, b, r))
            for r, error in enumerate(errors)
        ]
        return jnp.max(jnp.stack(relative))

    plane = jax.lax.cond(unvmap_any(by_plane), over_plane, lambda: jnp.zeros((), c.dtype))
    found = jnp.maximum(plane, jnp.max(jnp.where(pairs, service.error, 0), initial=0))
    return jnp.where(jnp.isnan(found), jnp.inf, POOR[c.dtype] + found)


def gain_error(activation: AbstractActivation, kernel: AbstractKernel) -> Float[Array, ""]:
    """Of the expectations that make a kernel's image and its responses: inputs' and pairs', with first
    derivatives."""
    own = expectation_error(activation, kernel.variances, order=1)
    return jnp.maximum(own, pairs_error(activation, kernel, order=1))


def _scale(activation: AbstractActivation, q: Float[Array, " n"], order: int) -> Float[Array, " n"]:
    """sqrt(E[(sigma^(order))^2])."""
    if order == 0:
        return jnp.sqrt(jnp.abs(variance_moment(activation, q)))
    place = table_indices(order).index((order, order))
    one = lambda q: moment_table(order, activation, q[None], q[None], q[None, None])[place, 0, 0]
    return jnp.sqrt(jnp.abs(jax.lax.map(one, q)))


def _tables(
    kernel: AbstractKernel,
) -> tuple[Float[Array, " n"], Float[Array, " m"], Float[Array, "n m"]]:
    """Variances of rows and columns, and the covariances between them."""
    if isinstance(kernel, Block):
        return kernel.row, kernel.column, kernel.cross
    return kernel.variances, kernel.variances, kernel.matrix()


def _relative(
    error: Float[Array, "n m"], rows: Float[Array, " n"], columns: Float[Array, " m"]
) -> Float[Array, ""]:
    # Where a moment vanishes, so does its error: a constant activation, an input of zero variance.
    return jnp.max(safe_divide(error, rows[:, None] * columns[None, :]))
