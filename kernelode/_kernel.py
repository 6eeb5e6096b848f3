"""Kernels: which entries travel through a network together, and what makes an input kernel valid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._checks import as_real_array, is_concrete, scalar
from ._custom_types import RealLike


class Variances(eqx.Module):
    """Diagonal entries alone: each input's variance travels by itself."""

    values: Float[Array, "*shape"]


class Block(eqx.Module):
    """A rectangular block of a kernel with the variances it needs: closed under every layer.

    `cross[i, j]` is the covariance of row input i with column input j, whose variances are `row[i]` and
    `column[j]`. The three are independent variables: perturbing `cross` holds the variances fixed,
    and perturbing `row` leaves `column` alone, also where a row and a column are the same input.
    """

    row: Float[Array, " n"]
    column: Float[Array, " m"]
    cross: Float[Array, "n m"]


def as_block(kernel: Float[Array, "n n"]) -> Block:
    """A symmetric kernel matrix as a block of all inputs with all inputs."""
    diagonal = jnp.diagonal(kernel)
    return Block(diagonal, diagonal, kernel)


def as_matrix(block: Block) -> Float[Array, "n n"]:
    """The kernel matrix of a block that came from one: its diagonal holds the variances."""
    diagonal = jnp.eye(block.row.shape[0], dtype=bool)
    return jnp.where(diagonal, block.row[:, None], block.cross)


def input_kernel(
    x: RealLike,
    weight_variance: RealLike = 1.0,
    bias_variance: RealLike = 0.0,
) -> Float[Array, "n n"]:
    """The kernel after a Gaussian read-in layer: K = weight_variance x x^T / d + bias_variance.

    **Arguments**

    - `x`: inputs, one a row; shape (n, d). The kernel has its dtype.
    - `weight_variance`: d times the variance of a read-in weight. Traced.
    - `bias_variance`: the variance of a read-in bias. Traced.

    **Raises** `ValueError` for a wrong shape, non-finite inputs or negative variances.
    """
    x = as_real_array("x", x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"`x` must have shape (inputs, features), got {x.shape}.")
    if is_concrete(x) and not np.all(np.isfinite(np.asarray(x))):
        raise ValueError("`x` must be finite, but has NaN or infinite entries.")
    weight = scalar("weight_variance", weight_variance, non_negative=True).astype(x.dtype)
    bias = scalar("bias_variance", bias_variance, non_negative=True).astype(x.dtype)
    return weight * (x @ x.T) / x.shape[1] + bias


def checked_kernel(kernel: RealLike, name: str = "kernel") -> Float[Array, "n n"]:
    """`kernel` as an array, if it is a covariance matrix; refused, never repaired, if it is not.

    **Raises** `ValueError` where a concrete kernel is not square, finite, symmetric and positive
    semidefinite (to rounding); a traced one is checked, at run time, for finite entries and pairs
    with |K_ab| <= sqrt(K_aa K_bb).
    """
    kernel = as_real_array(name, kernel)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] == 0:
        raise ValueError(f"`{name}` must be a square matrix, got shape {kernel.shape}.")
    if is_concrete(kernel):
        _check_concrete(np.asarray(kernel), name)
        return kernel
    diagonal = jnp.diagonal(kernel)
    limit = jnp.abs(diagonal[:, None] * diagonal[None, :])
    slack = 1 + 64 * jnp.finfo(kernel.dtype).eps
    bad = ~jnp.all(jnp.isfinite(kernel)) | jnp.any(diagonal < 0)
    bad = bad | jnp.any(kernel**2 > limit * slack**2)
    return eqx.error_if(
        kernel, bad, f"`{name}` is not a covariance: it must be finite with |K_ab|^2 <= K_aa K_bb."
    )


def _check_concrete(kernel: np.ndarray, name: str) -> None:
    size = np.abs(kernel).max()
    if not np.isfinite(size):
        raise ValueError(f"`{name}` must be finite, but has NaN or infinite entries.")
    slack = 64 * len(kernel) * np.finfo(kernel.dtype).eps * size
    if np.abs(kernel - kernel.T).max() > slack:
        raise ValueError(f"`{name}` must be symmetric, got a matrix that is not.")
    if (kernel.diagonal() < 0).any():
        raise ValueError(f"`{name}` must have a non-negative diagonal.")
    try:
        np.linalg.cholesky(kernel + slack * np.eye(len(kernel), dtype=kernel.dtype))
    except np.linalg.LinAlgError:
        lowest = np.linalg.eigvalsh(kernel)[0]
        if lowest < -slack:
            raise ValueError(
                f"`{name}` must be positive semidefinite, but its lowest eigenvalue is {lowest:.3g}."
            ) from None


def cast(tree, dtype):
    """The floating-point arrays of `tree` in `dtype`: a calculation has the kernel's precision."""
    floating = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if floating(x) else x, tree)
