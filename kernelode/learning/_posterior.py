"""Regression with the Gaussian process of an infinitely wide network, from one Cholesky factor."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jaxtyping import Array, Float

from .._kernel import Block, checked_entries
from .._support.checks import as_real_array, checked_sign, integer, scalar
from .._support.custom_types import RealLike
from .._support.results import RESULTS, choose_result
from .._support.show import Shown


class Posterior(Shown):
    """A network's outputs given targets at training inputs. P training inputs, T others.

    - `mean`: the predictions at the other inputs, shape (T,), or (T, outputs) as the targets.
    - `variance`: the outputs' posterior variances there, of one output, shape (T,).
    - `covariance`: the same between inputs, (T, T); None of a `Block`, which has no kernel for it.
    - `log_evidence`: log density of the targets, all outputs together, in nats.
    - `leave_one_out`: the prediction of each training target from all the others, (P,) or (P, outputs).
    - `leave_one_out_variance`: the variance of that target, noise included, (P,).
    - `amplitude`: the factor of kernel and ridge, given or fitted.
    - `result`: `RESULTS.successful`, or `singular_kernel` where kernel + ridge has no Cholesky factor;
        then all numbers are NaN.
    """

    mean: Float[Array, "others ..."]
    variance: Float[Array, " others"]
    covariance: Float[Array, "others others"] | None
    log_evidence: Float[Array, ""]
    leave_one_out: Float[Array, "train ..."]
    leave_one_out_variance: Float[Array, " train"]
    amplitude: Float[Array, ""]
    result: RESULTS


def posterior(
    kernel: RealLike | Block,
    targets: RealLike,
    *,
    ridge: RealLike,
    train: int | None = None,
    amplitude: RealLike | None = 1.0,
    throw: bool = True,
) -> Posterior:
    """Gaussian process regression: the network at infinite width, conditioned on training targets.

    With A = K_PP + ridge, s the amplitude, y the targets (C outputs), and * the other inputs,

        mean = K_*P A^-1 y,    covariance = s (K_** - K_*P A^-1 K_P*),
        log evidence = -1/2 [tr(y' A^-1 y) / s + C (log det A + P log(2 pi s))],
        leave-one-out residual_i = (A^-1 y)_i / (A^-1)_ii,    its variance = s / (A^-1)_ii

    (Rasmussen and Williams 2006, eqs 2.25, 2.26, 2.30 and 5.10-5.12).

    **Arguments**

    - `kernel`: of the network's output, the training inputs first: shape (N, N), or, where the
        covariance of the others is not wanted, a `Block` of all N inputs against the P training inputs.
        As output of a network, `network.read_out`.
    - `targets`: shape (P,), or (P, C); for classes, one-hot columns.
    - `ridge`: the variance of the targets' noise in units of the kernel, a number, or one for each
        training input, shape (P,); not negative.
    - `train`: how many of the N inputs train, P; by default as many as there are targets.
    - `amplitude`: s, which multiplies kernel and ridge; None fits the one of largest evidence,
        s = tr(y' A^-1 y) / (P C).
    - `throw`: raise where A is singular; else see `Posterior.result`.

    Dtype is that of `kernel`. Differentiable in the kernel, targets, ridge and amplitude. Costs P^3.

    **Raises** `ValueError` for a kernel that is no covariance, and for shapes that do not match; with
    `throw`, an error where kernel + ridge is not positive definite: inputs that repeat, with no ridge.
    """
    kernel = checked_entries(kernel)
    targets = as_real_array("targets", targets).astype(kernel.dtype)
    if targets.ndim not in (1, 2) or 0 in targets.shape:
        raise ValueError(f"`targets` must have shape (train,) or (train, outputs), got {targets.shape}.")
    train = len(targets) if train is None else integer("train", train, least=1)
    inputs, columns = kernel.cross.shape if isinstance(kernel, Block) else kernel.shape
    if len(targets) != train:
        raise ValueError(f"`targets` must be {train}, one for each training input, got {len(targets)}.")
    if inputs < train or (isinstance(kernel, Block) and columns != train):
        raise ValueError(
            f"`kernel` must have the {train} training inputs first, and a `Block` those alone in its "
            f"columns; got shape {(inputs, columns)}."
        )
    ridge = as_real_array("ridge", ridge).astype(kernel.dtype)
    if ridge.shape not in ((), (train,)):
        raise ValueError(f"`ridge` must have shape () or ({train},), got {ridge.shape}.")
    ridge = checked_sign("ridge", ridge, non_negative=True)
    if amplitude is not None:
        amplitude = scalar("amplitude", amplitude, positive=True).astype(kernel.dtype)
    found = _posterior(kernel, targets, ridge, amplitude)
    if throw:
        found = found.result.error_if(found, found.result != RESULTS.successful)
    return found


@eqx.filter_jit
def _posterior(kernel, targets, ridge, amplitude) -> Posterior:
    train = len(targets)
    y = targets.reshape(train, -1)
    outputs = y.shape[1]
    variances, cross = _parts(kernel, train)
    observed = cross[:train] + jnp.diag(jnp.broadcast_to(ridge, (train,)))
    factor = jnp.linalg.cholesky(observed)
    solve = lambda x: jax.scipy.linalg.cho_solve((factor, True), x)
    weights, inverse = solve(y), jnp.diagonal(solve(jnp.eye(train, dtype=cross.dtype)))
    fit = jnp.sum(y * weights)
    if amplitude is None:
        amplitude = fit / (train * outputs)
    log_determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    spread = train * jnp.log(2 * jnp.pi * amplitude)
    log_evidence = -(fit / amplitude + outputs * (log_determinant + spread)) / 2

    shares = jax.scipy.linalg.solve_triangular(factor, cross[train:].T, lower=True)
    whole = None
    if not isinstance(kernel, Block):
        whole = amplitude * (kernel[train:, train:] - shares.T @ shares)
    known = jnp.all(jnp.isfinite(factor))
    like = lambda x: x.reshape(len(x), *targets.shape[1:])
    return Posterior(
        mean=like(cross[train:] @ weights),
        variance=amplitude * (variances[train:] - jnp.sum(shares**2, 0)),
        covariance=whole,
        log_evidence=log_evidence,
        leave_one_out=like(y - weights / inverse[:, None]),
        leave_one_out_variance=amplitude / inverse,
        amplitude=amplitude,
        result=choose_result(known, RESULTS.successful, RESULTS.singular_kernel),
    )


def _parts(kernel: Float[Array, "n n"] | Block, train: int) -> tuple[Array, Array]:
    """The variances of all inputs, and their covariances with the training inputs."""
    if not isinstance(kernel, Block):
        return jnp.diagonal(kernel), kernel[:, :train]
    # A `Block` knows rows and columns as different inputs; a training input with itself is one.
    same = jnp.eye(*kernel.cross.shape, dtype=bool)
    return kernel.row, jnp.where(same, kernel.column[None, :], kernel.cross)
