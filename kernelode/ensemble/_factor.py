"""Square roots of empirical covariances, read off the vectors themselves."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def row_factor(
    rows: Float[Array, "inputs *batch n"], constant: Float[Array, ""]
) -> tuple[Float[Array, "inputs inputs *batch"], Float[Array, "inputs *batch n"]]:
    """Lower triangular A with A A^T = rows rows^T + constant 1 1^T, and the orthonormal rows behind it.

    Gram-Schmidt on the rows, to which a common entry sqrt(constant) is appended. A Cholesky factor
    of the Gram matrix would know small distances between inputs to half of the digits only; here equal,
    parallel and dead (zero) inputs come out exactly, and nothing is added to the diagonal: a row in the
    span of those before it, to rounding, gets a zero in its own column.
    """
    count, dtype = rows.shape[0], rows.dtype
    rounding = 16 * count * jnp.finfo(dtype).eps
    rest = [rows[a] for a in range(count)]
    extra = [jnp.full(rows.shape[1:-1], jnp.sqrt(constant).astype(dtype)) for _ in range(count)]
    length = [jnp.sum(row**2, axis=-1) + end**2 for row, end in zip(rest, extra)]
    zero = jnp.zeros(rows.shape[1:-1], dtype)
    factor = [[zero] * count for _ in range(count)]
    basis = []
    for j in range(count):
        square = jnp.sum(rest[j] ** 2, axis=-1) + extra[j] ** 2
        independent = square > rounding**2 * length[j]
        # The inner `where` keeps the derivative finite where there is nothing to divide by.
        root = jnp.sqrt(jnp.where(independent, square, 1))
        inverse = jnp.where(independent, 1 / root, 0)
        direction, end = rest[j] * inverse[..., None], extra[j] * inverse
        basis.append(direction)
        factor[j][j] = jnp.where(independent, root, 0)
        for k in range(j + 1, count):
            along = jnp.sum(rest[k] * direction, axis=-1) + extra[k] * end
            factor[k][j] = along
            rest[k] = rest[k] - along[..., None] * direction
            extra[k] = extra[k] - along * end
    return jnp.stack([jnp.stack(row) for row in factor]), jnp.stack(basis)


def positive_factor(matrix: Float[Array, "n n"], rounding: float) -> Float[Array, "n n"]:
    """Lower triangular A with A A^T = `matrix`, positive semidefinite, its entries known to a relative
    `rounding`: less than that of a variance is nothing."""
    count = matrix.shape[0]
    rest, columns = matrix, []
    for j in range(count):
        independent = rest[j, j] > 64 * rounding * matrix[j, j]
        root = jnp.sqrt(jnp.where(independent, rest[j, j], 1))
        below = np.arange(count) >= j
        columns.append(jnp.where(independent & below, rest[:, j] / root, 0))
        rest = rest - columns[j][:, None] * columns[j][None, :]
    return jnp.stack(columns, axis=1)


def apply_factor(
    factor: Float[Array, "inputs inputs *batch"], vectors: Float[Array, "inputs *batch n"]
) -> Float[Array, "inputs *batch n"]:
    """sum_c A_ac vectors_c for a lower triangular A."""
    count = vectors.shape[0]
    product = lambda a: sum(factor[a, c][..., None] * vectors[c] for c in range(a + 1))
    return jnp.stack([product(a) for a in range(count)])
