"""Kernels: which entries travel through a network together, and what makes an input kernel valid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._checks import as_real_array, is_concrete, scalar
from ._custom_types import RealLike
from ._show import Shown


class Variances(Shown):
    """Diagonal entries alone: each input's variance travels by itself."""

    values: Float[Array, "*shape"]


class Block(Shown):
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

    **Raises** `ValueError` for a wrong shape, non-finite inputs or negative variances, `TypeError` for a
    dtype other than float32 and float64.
    """
    x = as_real_array("x", x)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"`x` must have shape (inputs, features), got {x.shape}.")
    if is_concrete(x) and not np.all(np.isfinite(np.asarray(x))):
        raise ValueError("`x` must be finite, but has NaN or infinite entries.")
    weight = scalar("weight_variance", weight_variance, non_negative=True).astype(x.dtype)
    bias = scalar("bias_variance", bias_variance, non_negative=True).astype(x.dtype)
    # In full precision: on some devices the default is 10 bits, with which the kernel is no covariance.
    gram = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    return weight * gram / x.shape[1] + bias


def checked_kernel(kernel: RealLike, name: str = "kernel") -> Float[Array, "n n"]:
    """`kernel` as an array, if it is a covariance matrix; refused, never repaired, if it is not.

    What every function that takes a kernel does first. It is judged at unit diagonal,
    K_ab / sqrt(K_aa K_bb), so that a small block beside a large entry is seen as it would be alone.

    **Arguments**

    - `kernel`: shape (n, n).
    - `name`: what it is called in messages.

    **Raises** `TypeError` for a dtype other than float32 and float64; `ValueError` where a concrete
    kernel is not square, finite, symmetric and positive semidefinite (to rounding). A traced one is
    checked when it runs, for finite and symmetric entries and for |K_ab| <= sqrt(K_aa K_bb).
    """
    kernel = as_real_array(name, kernel)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] == 0:
        raise ValueError(f"`{name}` must be a square matrix, got shape {kernel.shape}.")
    if is_concrete(kernel):
        _check_concrete(np.asarray(kernel), name)
        return kernel
    fixed = jax.lax.stop_gradient(kernel)
    limits = _slack(len(kernel), kernel.dtype), float(jnp.finfo(kernel.dtype).tiny)
    scaled, slack = _at_unit_diagonal(fixed, jnp, *limits)
    pairs = (jnp.abs(scaled) <= 1 + slack) & (jnp.abs(scaled - scaled.T) <= slack)
    bad = ~jnp.all(pairs) | ~jnp.all(jnp.isfinite(fixed)) | jnp.any(jnp.diagonal(fixed) < 0)
    return eqx.error_if(
        kernel,
        bad,
        f"`{name}` is not a covariance: it must be finite and symmetric with |K_ab|^2 <= K_aa K_bb.",
    )


def _slack(n: int, dtype) -> float:
    """What rounding does to eigenvalues at unit diagonal: entries are sums of products over features,
    wrong by some eps (64 leaves room for thousands of features), eigenvalues by n times as much."""
    return 64 * n * float(jnp.finfo(dtype).eps)


def _at_unit_diagonal(kernel, xp, slack: float, tiny: float):
    """K_ab / sqrt(K_aa K_bb), infinite where a zero variance has a covariance, and the `slack` of each
    entry. Divided by one root after the other: products of variances overflow."""
    root = xp.sqrt(xp.where(xp.diagonal(kernel) > 0, xp.diagonal(kernel), 0))
    safe = xp.where(root > 0, root, 1)
    scaled = kernel / safe[:, None] / safe[None, :]
    dead = (root == 0)[:, None] | (root == 0)[None, :]
    # Sums of what is below the least normal number, `tiny`, may have been flushed to zero.
    flushed = 4 * tiny / safe[:, None] / safe[None, :]
    return xp.where(dead & (kernel != 0), xp.inf, scaled), slack + xp.where(dead, 0, flushed)


def _check_concrete(kernel: np.ndarray, name: str) -> None:
    if not np.isfinite(kernel).all():
        raise ValueError(f"`{name}` must be finite, but has NaN or infinite entries.")
    if (kernel.diagonal() < 0).any():
        raise ValueError(f"`{name}` must have a non-negative diagonal.")
    eps_slack, exact = _slack(len(kernel), kernel.dtype), kernel.astype(float)
    with np.errstate(over="ignore"):  # of what is far from a covariance
        scaled, slack = _at_unit_diagonal(exact, np, eps_slack, float(np.finfo(kernel.dtype).tiny))
    dead = kernel.diagonal() == 0
    lost = (dead[:, None] | dead[None, :]) & (kernel != 0)
    if lost.any():
        a, b = np.argwhere(lost)[0]
        raise ValueError(
            f"`{name}` must be positive semidefinite, but inputs {a} and {b} have the covariance "
            f"{kernel[a, b]:.3g}, and one of them the variance zero."
        )
    scaled = np.clip(scaled, -1e150, 1e150)  # no difference of infinities
    if (np.abs(scaled - scaled.T) > slack).any():
        raise ValueError(f"`{name}` must be symmetric, got a matrix that is not.")
    shifted = scaled + np.diag(slack.diagonal())
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        if np.linalg.eigvalsh(shifted)[0] < -1e-15 * len(kernel):
            raise ValueError(
                f"`{name}` must be positive semidefinite, but its lowest eigenvalue is "
                f"{np.linalg.eigvalsh(scaled)[0]:.3g} when it is scaled to unit diagonal."
            ) from None


def cast(tree, dtype):
    """The floating-point arrays of `tree` in `dtype`: a calculation has the kernel's precision."""
    floating = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: x.astype(dtype) if floating(x) else x, tree)


def as_constant(tree):
    """`tree` as a constant to differentiation; a leaf may be a function, as of a user's activation."""
    arrays, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
