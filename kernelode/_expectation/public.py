"""The Gaussian expectations as users call them: arguments checked, and numbers taken where arrays are."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._activation.base import AbstractActivation
from .._support.checks import as_real_array, described, flag, instance, integer, is_concrete
from .._support.custom_types import RealLike
from .._support.trees import cast
from . import chaos, moments, single
from .moments import Estimate
from .nodes import TERMS


def pair_moments(
    activation: AbstractActivation,
    a: RealLike,
    b: RealLike,
    c: RealLike,
    order: int = 0,
    *,
    elementwise: bool = False,
) -> dict[tuple[int, int], Estimate]:
    """E[sigma^(i)(x) sigma^(j)(y)] with error estimates, for all i + j even and at most 2 `order`.

    They are all the derivatives of E[sigma sigma] up to `order`, by Price's theorem:
    (d/da)^p (d/dc)^r (d/db)^s E[sigma sigma] = E[sigma^(2p+r) sigma^(r+2s)] / 2^(p+s).

    Where a moment is infinite or is not known, its estimate is infinite.

    **Arguments**

    - `activation`: sigma.
    - `a`, `b`: Var x and Var y, shapes (n,) and (m,); or numbers. Traced.
    - `c`: Cov(x, y), shape (n, m); without the dimension of what is a number. Traced.
    - `order`: static.
    - `elementwise`: `a`, `b` and `c` have one shape, and are of one pair each; static. (All pairs of n
        inputs share what belongs to an input, and are faster as a table.)

    **Returns** an `Estimate` by (i, j), of the shape of `c`.

    **Raises** `ValueError` for shapes that do not fit, for concrete variances that are negative or not
    finite and for covariances beyond sqrt(ab); `TypeError` for arguments of another type.
    """
    activation = _checked(activation)
    order = integer("order", order, least=0)
    a, b, c = _in_one_dtype(a=a, b=b, c=c)
    if flag("elementwise", elementwise):
        return _elementwise(activation, a, b, c, order)
    _check_pairs(a, b, c)
    shape = c.shape
    activation = cast(activation, c.dtype)
    found = moments.pair_moments(
        activation, a.reshape(-1), b.reshape(-1), c.reshape(a.size, b.size), order
    )
    return jax.tree.map(lambda x: x.reshape(shape), found)


def variance_derivatives(activation: AbstractActivation, q: RealLike, order: int = 0) -> Estimate:
    """(d/dq)^r E[sigma^2] for r = 0 .. order, x ~ N(0, q), with error estimates.

    **Arguments**

    - `activation`: sigma.
    - `q`: shape (n,), or a number. Traced.
    - `order`: static.

    **Returns** an `Estimate` of shape (order + 1, n), or (order + 1,).

    **Raises** `ValueError` or `TypeError` for a wrong argument, as `pair_moments`.
    """
    activation = _checked(activation)
    order = integer("order", order, least=0)
    (q,) = _in_one_dtype(q=q)
    if q.ndim > 1:
        raise ValueError(f"`q` must be a number or a vector, got shape {q.shape}.")
    _check_variances(q=q)
    found = moments.variance_derivatives(cast(activation, q.dtype), q.reshape(-1), order)
    return jax.tree.map(lambda x: x.reshape(order + 1, *q.shape), found)


def single_moments(
    activation: AbstractActivation, q: RealLike, derivatives: Sequence[int] = (0, 0)
) -> Estimate:
    """E[sigma^(i)(x) sigma^(j)(x) ...] for x ~ N(0, q) and the numbers i, j, ... of `derivatives`, with
    error estimates: (0, 0, 0, 0) is E[sigma^4], (0, 0, 1, 1) is E[sigma^2 sigma'^2].

    **Arguments**

    - `activation`: sigma.
    - `q`: shape (n,), or a number. Traced; derivatives by it are E[(product)''] / 2.
    - `derivatives`: one number a factor; static. Of activations with kinks 0 and 1 alone.

    **Returns** an `Estimate` of the shape of `q`.

    **Raises** `ValueError` or `TypeError` for a wrong argument, as `pair_moments`.
    """
    activation = _checked(activation)
    if not isinstance(derivatives, Sequence) or not derivatives:
        raise TypeError(
            "`derivatives` must be numbers of derivatives, one a factor, such as (0, 0, 1, 1); got "
            f"{described(derivatives)}."
        )
    factors = tuple(integer("derivatives", k, least=0) for k in derivatives)
    (q,) = _in_one_dtype(q=q)
    if q.ndim > 1:
        raise ValueError(f"`q` must be a number or a vector, got shape {q.shape}.")
    _check_variances(q=q)
    found = single.single_moments(cast(activation, q.dtype), q.reshape(-1), factors)
    return jax.tree.map(lambda x: x.reshape(q.shape), found)


def hermite_spectrum(activation: AbstractActivation, q: RealLike, terms: int) -> Estimate:
    """s_m(q) = E[sigma(sqrt(q) z) h_m(z)], m < terms, with error estimates. Shape (terms,).

    Of n inputs the matrix (n, terms) of which Mehler's series is made,
    E[sigma_a sigma_b] = sum_m corr_ab^m s_m(q_a) s_m(q_b).

    **Arguments**

    - `activation`: sigma.
    - `q`: a number, or shape (n,); traced.
    - `terms`: static.

    **Raises** `ValueError` for more than 1024 terms, and `ValueError` or `TypeError` for other wrong
    arguments.
    """
    activation = _checked(activation)
    if integer("terms", terms, least=1) > TERMS:
        raise ValueError(f"`terms` must be between 1 and {TERMS}, got {terms}.")
    (q,) = _in_one_dtype(q=q)
    if q.ndim > 1:
        raise ValueError(f"`q` must be a number or a vector, got shape {q.shape}.")
    _check_variances(q=q)
    activation = cast(activation, q.dtype)
    one = lambda q: chaos.hermite_spectrum(activation, q, int(terms))
    return jax.vmap(one)(q) if q.ndim else one(q)


def pair_coefficients(
    activation: AbstractActivation, a: RealLike, b: RealLike, c: RealLike, order: int, *, terms: int = 512
) -> Estimate:
    """c_jk = E[sigma(x) sigma(y) h_j(u) h_k(v)] for j + k <= order (others are zero), with error
    estimates, both of shape (order + 1, order + 1), in the orthonormal chaos basis h_m = He_m / sqrt(m!):

        x = sqrt(a) u,  y = sqrt(b) (corr u + corr' v),  corr' = sqrt(1 - corr^2),

    with u and v independent standard normals.

    **Arguments**

    - `activation`: sigma.
    - `a`, `b`, `c`: Var x, Var y and Cov(x, y); traced numbers (`vmap` for many pairs).
    - `order`: static.
    - `terms`: how many orders of the Hermite expansion are summed; static. The estimate contains
        the neglected tail, which Parseval's sum bounds.

    **Raises** `ValueError` where `terms + order` exceeds 1024, and `ValueError` or `TypeError` for other
    wrong arguments, as `pair_moments`.
    """
    activation = _checked(activation)
    order = integer("order", order, least=0)
    if not integer("terms", terms, least=1) <= TERMS - order:
        raise ValueError(f"`terms` must lie between 1 and {TERMS - order}, got {terms}.")
    a, b, c = _in_one_dtype(a=a, b=b, c=c)
    _check_numbers(a=a, b=b, c=c)
    _check_pairs(a, b, c)
    return chaos.pair_coefficients(cast(activation, c.dtype), a, b, c, order, terms=int(terms))


def _elementwise(
    activation: AbstractActivation, a: Array, b: Array, c: Array, order: int
) -> dict[tuple[int, int], Estimate]:
    if not a.shape == b.shape == c.shape:
        raise ValueError(
            "`a`, `b` and `c` must have one shape with `elementwise=True`, got "
            f"{a.shape}, {b.shape} and {c.shape}."
        )
    _check_variances(a=a, b=b)
    _check_covariances(np.multiply, a, b, c)
    activation = cast(activation, c.dtype)
    one = lambda a, b, c: moments.pair_moments(activation, a[None], b[None], c[None, None], order)
    found = jax.vmap(one)(a.reshape(-1), b.reshape(-1), c.reshape(-1))
    return jax.tree.map(lambda x: x.reshape(c.shape), found)


def _checked(activation: object) -> AbstractActivation:
    if isinstance(activation, Callable) and not isinstance(activation, AbstractActivation | type):
        raise TypeError(
            "`activation` must be an activation: `Elementwise(fn)` makes one of a function; got "
            f"{described(activation)}."
        )
    return instance("activation", activation, AbstractActivation, "an activation such as `Tanh()`")


def _in_one_dtype(**values: RealLike) -> list[Array]:
    """Real arrays of their common dtype, which numbers without one follow."""
    arrays = [as_real_array(name, value) for name, value in values.items()]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
    return [jnp.asarray(x, dtype) for x in arrays]


def _check_numbers(**values: Array) -> None:
    for name, value in values.items():
        if value.ndim:
            raise ValueError(f"`{name}` must be a number (`vmap` for many), got shape {value.shape}.")


def _check_variances(**values: Array) -> None:
    for name, value in values.items():
        if is_concrete(value) and not (np.isfinite(value) & (np.asarray(value) >= 0)).all():
            raise ValueError(f"`{name}` must be finite and not negative, got {np.asarray(value)}.")


def _check_pairs(a: Array, b: Array, c: Array) -> None:
    for name, value in (("a", a), ("b", b)):
        if value.ndim > 1:
            raise ValueError(f"`{name}` must be a number or a vector, got shape {value.shape}.")
    if c.shape != (*a.shape, *b.shape):
        raise ValueError(
            f"`c` must have shape {(*a.shape, *b.shape)}, that of `a` {a.shape} and of `b` {b.shape} "
            f"together; got {c.shape}."
        )
    _check_variances(a=a, b=b)
    _check_covariances(np.multiply.outer, a, b, c)


def _check_covariances(
    product: Callable[[np.ndarray, np.ndarray], np.ndarray], a: Array, b: Array, c: Array
) -> None:
    if not all(is_concrete(x) for x in (a, b, c)):
        return
    # One root after the other: products of variances overflow. 64 eps: rounding of sums over features.
    roots = product(*(np.sqrt(np.asarray(x, float)) for x in (a, b)))
    if not (np.abs(np.asarray(c, float)) <= roots * (1 + 64 * float(jnp.finfo(c.dtype).eps))).all():
        raise ValueError("`c` must be a covariance: finite, and at most sqrt(a b) in size.")
