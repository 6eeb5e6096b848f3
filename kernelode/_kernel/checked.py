"""Validity of kernels: covariances, judged at unit diagonal."""

from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from .._support.checks import as_real_array, is_concrete, refuse_where
from .._support.custom_types import RealLike
from .kinds import AbstractKernel, Block


def checked_kernel(kernel: RealLike, name: str = "kernel") -> Float[Array, "n n"]:
    """`kernel` as an array, if it is a covariance matrix; refused, never repaired, if it is not.

    Every function that takes a kernel calls this first. It is judged at unit diagonal,
    K_ab / sqrt(K_aa K_bb), so that a small block next to a large entry is judged as it would be alone.

    **Arguments**

    - `kernel`: shape (n, n).
    - `name`: its name in messages.

    **Raises** `TypeError` for a dtype other than float32 and float64; `ValueError` where a concrete
    kernel is not square, finite, symmetric and positive semidefinite (to rounding). A traced one is
    checked when it runs, for finite and symmetric entries and for |K_ab| <= sqrt(K_aa K_bb).
    """
    if isinstance(kernel, AbstractKernel):
        raise TypeError(
            f"`{name}` must be a square matrix here, the kernel of all inputs with each other; got a "
            f"`{type(kernel).__name__}`."
        )
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


def checked_entries(kernel: RealLike | Block, name: str = "kernel") -> Float[Array, "n n"] | Block:
    """`checked_kernel` of a matrix; of a `Block` the same for every row input with every column input.

    **Raises** `TypeError` and `ValueError` as there.
    """
    if not isinstance(kernel, Block):
        return checked_kernel(kernel, name)
    row, column, cross = (
        as_real_array(f"{name}.{part}", getattr(kernel, part)) for part in ("row", "column", "cross")
    )
    if len({x.dtype for x in (row, column, cross)}) > 1:
        raise TypeError(f"The arrays of `{name}` must have one dtype.")
    shape = (*row.shape, *column.shape)
    if row.ndim != 1 or column.ndim != 1 or cross.shape != shape or 0 in shape:
        raise ValueError(
            f"`{name}` must be a `Block` with `row` (n,), `column` (m,) and `cross` (n, m); got shapes "
            f"{row.shape}, {column.shape} and {cross.shape}."
        )
    found, parts = Block(row, column, cross), (row, column, cross)
    message = (
        f"`{name}` is not a covariance: it must be finite, with variances that are not negative and "
        "|K_ab|^2 <= K_aa K_bb."
    )
    if all(is_concrete(x) for x in parts):
        return refuse_where(found, _beyond(*(np.asarray(x) for x in parts), xp=np), message)
    return refuse_where(found, _beyond(*jax.lax.stop_gradient(parts), xp=jnp), message)


def _beyond(
    row: Array | np.ndarray, column: Array | np.ndarray, cross: Array | np.ndarray, *, xp: ModuleType
) -> Any:
    """Whether a block is no covariance."""
    root = lambda x: xp.sqrt(xp.where(x > 0, x, 0))
    slack, tiny = 64 * float(jnp.finfo(cross.dtype).eps), float(jnp.finfo(cross.dtype).tiny)
    a, b = root(row)[:, None], root(column)[None, :]
    # Divided by one root after the other: products of variances overflow.
    safe = lambda x: xp.where(x > 0, x, 1)
    scaled = xp.abs(cross) / safe(a) / safe(b)
    dead = (a == 0) | (b == 0)
    large = xp.where(dead, cross != 0, scaled > 1 + slack + 4 * tiny / safe(a) / safe(b))
    finite = xp.all(xp.isfinite(cross)) & xp.all(xp.isfinite(row)) & xp.all(xp.isfinite(column))
    return ~finite | xp.any(large) | xp.any(row < 0) | xp.any(column < 0)


def _slack(n: int, dtype: DTypeLike) -> float:
    """Rounding errors of eigenvalues at unit diagonal: entries are sums of products over features, wrong
    by some eps (64 leaves room for thousands of features), eigenvalues by n times as much."""
    return 64 * n * float(jnp.finfo(dtype).eps)


def _at_unit_diagonal(
    kernel: Array | np.ndarray, xp: ModuleType, slack: float, tiny: float
) -> tuple[Any, Any]:
    """K_ab / sqrt(K_aa K_bb), infinite where a zero variance has a covariance, and the `slack` of each
    entry. Divided by one root after the other: products of variances overflow."""
    root = xp.sqrt(xp.where(xp.diagonal(kernel) > 0, xp.diagonal(kernel), 0))
    safe = xp.where(root > 0, root, 1)
    scaled = kernel / safe[:, None] / safe[None, :]
    dead = (root == 0)[:, None] | (root == 0)[None, :]
    # Sums of numbers below the least normal one, `tiny`, may have been flushed to zero.
    flushed = 4 * tiny / safe[:, None] / safe[None, :]
    return xp.where(dead & (kernel != 0), xp.inf, scaled), slack + xp.where(dead, 0, flushed)


def _check_concrete(kernel: np.ndarray, name: str) -> None:
    if not np.isfinite(kernel).all():
        raise ValueError(f"`{name}` must be finite, but has NaN or infinite entries.")
    if (kernel.diagonal() < 0).any():
        raise ValueError(f"`{name}` must have a non-negative diagonal.")
    eps_slack, exact = _slack(len(kernel), kernel.dtype), kernel.astype(float)
    with np.errstate(over="ignore"):  # of matrices far from a covariance
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
