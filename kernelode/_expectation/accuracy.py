"""How well expectations are known at given variances: what results say of themselves."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._activation.base import (
    AbstractActivation,
    AbstractClosedFormActivation,
    AbstractStraightActivation,
)
from .._kernel import Block
from .._trees import as_constant
from .mehler import POOR
from .moments import pair_moments, variance_derivatives
from .variance import integrate_ladder

#: Relative errors of expectations above which a result is `RESULTS.inaccurate`.
_TOLERANCES = {jnp.dtype("float64"): 1e-6, jnp.dtype("float32"): 1e-3}


def tolerance(dtype) -> float:
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
    size = jnp.abs(value)
    # Where a moment vanishes, so does its error: a constant activation, an input of zero variance.
    relative = jnp.where(size > 0, error / jnp.where(size > 0, size, 1), 0)
    return jnp.maximum(floor, jnp.max(relative))


def kernel_error(activation: AbstractActivation, kernel: Float[Array, "n n"]) -> Float[Array, ""]:
    """An estimate of the error of E[sigma_a sigma_b] relative to sqrt(E[sigma_a^2] E[sigma_b^2]), the
    largest of all pairs."""
    q = jnp.diagonal(kernel)
    root, own = _roots(activation, q)
    error = pair_moments(activation, q, q, kernel)[0, 0].error
    error = jnp.where(jnp.eye(q.shape[0], dtype=bool), own[:, None], error)
    return _relative(error, root, root)


def block_error(activation: AbstractActivation, block: Block) -> Float[Array, ""]:
    """The same of row inputs with column inputs."""
    rows, of_rows = _roots(activation, block.row)
    columns, of_columns = _roots(activation, block.column)
    error = pair_moments(activation, block.row, block.column, block.cross)[0, 0].error
    alone = [jnp.max(_ratio(e, r**2)) for e, r in ((of_rows, rows), (of_columns, columns))]
    return jnp.max(jnp.stack([_relative(error, rows, columns), *alone]))


def _roots(activation: AbstractActivation, q: Float[Array, " n"]):
    """sqrt(E[sigma^2]), and the error of its square."""
    own = variance_derivatives(activation, q)
    return jnp.sqrt(jnp.abs(own.value[0])), own.error[0]


def _relative(error, rows, columns) -> Float[Array, ""]:
    return jnp.max(_ratio(error, rows[:, None] * columns[None, :]))


def _ratio(error, size):
    return jnp.where(size > 0, error / jnp.where(size > 0, size, 1), 0)
