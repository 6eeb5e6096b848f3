"""The kernel after a Gaussian read-in layer."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._support.checks import as_real_array, is_concrete, scalar
from .._support.custom_types import RealLike


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
