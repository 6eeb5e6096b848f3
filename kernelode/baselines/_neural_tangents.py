"""Our networks as neural-tangents networks, and their infinite-width kernels."""

import contextlib
import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._activation import (
    GELU,
    AbstractActivation,
    AbstractHomogeneousActivation,
    Erf,
    Linear,
    Polynomial,
    Sin,
)
from .._architecture import AbstractArchitecture, AbstractLayered, AbstractResidualNetwork, Layer
from .._support.checks import as_real_array, is_concrete, positive_integer
from ._loader import load_neural_tangents


def stax_network(
    net: AbstractArchitecture, *, width: int = 512, outputs: int = 1, degree: int = 32
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """`net` as a network of `neural_tangents.stax`.

    A layer of width n with variances C_W, C_b is `stax.Dense` in the NTK parameterisation,

        z = sqrt(C_W / n) W x + sqrt(C_b) b,    W_ij, b_i ~ N(0, 1),

    so that `W_std**2` is C_W = (fan-in) Var and `b_std**2` is C_b; the read-in has fan-in d, which
    gives K^0 = C_W,in x x^T / d + C_b,in as in `input_kernel`. The scale rho of a residual branch
    is taken into the branch's last layer, as `W_std = rho sqrt(C_W)`, `b_std = rho sqrt(C_b)`. In
    this parameterisation rho z is the same function of the same parameters, so both the NNGP and
    the NTK are those of h + rho f(h). (In the standard parameterisation, W_ij ~ N(0, C_W / n), the
    NTK would be another one.)

    **Arguments**

    - `net`: a `ResNet` or `MLP`. Its variances, scales and activation parameters may be traced, but
        for the coefficients of a `Polynomial`. As standard deviations enter here, the derivative
        with respect to a variance is NaN where that variance is zero.
    - `width`, `outputs`: layer sizes of the finite network, `init_fn` and `apply_fn`. The kernels, of
        infinite width and per output, do not depend on them.
    - `degree`: nodes of the Gauss-Hermite rule, used for activations of which `stax` knows no closed
        form (`Tanh`, `Softplus`, `Swish`, `Elementwise`). Nothing estimates or bounds its error,
        which grows with the variance of the preactivations (for tanh at 32 nodes, E[sigma'^2] is
        wrong in the fourth digit at variance one and by 5 % at four) and is worse at a kink.

    **Returns** `(init_fn, apply_fn, kernel_fn)`, as every `stax` layer. neural-tangents computes in
    float64 whenever JAX has it enabled, relies on JAX's default settings `jax_numpy_rank_promotion`
    and `jax_numpy_dtype_promotion`, and warns of sums of branches that are not independent (those
    of a residual network are: each block has weights of its own).

    **Raises** `TypeError` if `net` or its activation has no counterpart, `ImportError` if
    neural-tangents is missing.
    """
    if not isinstance(net, AbstractLayered):
        raise TypeError(f"`net` must be a `ResNet` or an `MLP`, got {type(net).__name__}.")
    width = positive_integer("width", width)
    outputs = positive_integer("outputs", outputs)
    degree = positive_integer("degree", degree)
    return network_of(load_neural_tangents().stax, net, width, outputs, degree)


def network_of(stax: Any, net: AbstractLayered, width: int, outputs: int, degree: int) -> Any:
    """`net`, made with the layers of a namespace `stax`."""

    def dense(features, weight_variance, bias_variance, scale=1.0):
        return stax.Dense(features, scale * jnp.sqrt(weight_variance), scale * jnp.sqrt(bias_variance))

    with _without_warnings():
        nonlinearity = _nonlinearity(stax, net.activation, degree)

    def block(layer: Layer):
        one = lambda scale: dense(width, layer.affine.weight_variance, layer.affine.bias_variance, scale)
        plain = [nonlinearity, one(1.0)] * (net.layers_per_block - 1)
        return stax.serial(*plain, nonlinearity, one(layer.scale))

    entry = lambda k: jax.tree.map(operator.itemgetter(k), net.layers())
    body = [block(entry(k)) for k in range(net.depth)]
    if isinstance(net, AbstractResidualNetwork):
        body = [_residual(stax, entry(k).skip, branch) for k, branch in enumerate(body)]
    return stax.serial(
        dense(width, net.input_weight_variance, net.input_bias_variance),
        *body,
        nonlinearity,
        dense(outputs, net.output_weight_variance, net.output_bias_variance),
    )


def neural_tangents_kernels(
    net: AbstractArchitecture,
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m features"] | None = None,
    *,
    degree: int = 32,
) -> dict[str, Float[Array, "..."]]:
    """The infinite-width kernels of the network's output between inputs, by neural-tangents.

    With theta all weights and biases in the NTK parameterisation (see `stax_network`),

        nngp[a, b] = E[y(x_a) y(y_b)],    ntk[a, b] = sum_theta E[dy(x_a)/dtheta dy(y_b)/dtheta].

    Nothing is compiled as a whole; for repeated use, `jax.jit` a function of `x` or of the traced
    parameters of `net`. Compilation time grows with depth, since neural-tangents unrolls the layers.

    **Arguments**

    - `net`: a `ResNet` or `MLP`.
    - `x`: inputs, one a row; shape (n, d).
    - `y`: other inputs, shape (m, d); without them, `x` again.
    - `degree`: see `stax_network`: its error is not controlled.

    **Returns** a dictionary with keys "nngp" and "ntk", arrays of shape (n, m).

    **Raises** `ValueError` for inputs of a wrong shape, and as `stax_network`.
    """
    x = _inputs("x", x)
    y = None if y is None else _inputs("y", y)
    if y is not None and x.shape[1] != y.shape[1]:
        raise ValueError(
            f"`x` and `y` must have equally many features, got {x.shape[1]} and {y.shape[1]}."
        )
    # Written for JAX's defaults: a user's stricter settings are for the user's own code.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), _without_warnings():
        *_, kernel_fn = stax_network(net, degree=degree)
        nngp, ntk = kernel_fn(x, y, ("nngp", "ntk"))
    return {"nngp": nngp, "ntk": ntk}


def _nonlinearity(stax, activation: AbstractActivation, degree: int) -> Any:
    match activation:
        case Erf():
            return stax.Erf()
        case GELU():
            return stax.Gelu(approximate=False)
        case Sin():
            return stax.Sin(b=activation.frequency)
        case Linear():
            return stax.Identity()
        case AbstractHomogeneousActivation():
            return stax.ABRelu(*activation.slopes)
        case Polynomial():
            if not is_concrete(activation.coefficients):
                raise TypeError(
                    "`stax.Polynomial` takes concrete coefficients, so that a `Polynomial` activation "
                    "cannot be traced here: do not differentiate or map over its coefficients."
                )
            return stax.Polynomial(activation.coefficients)
        case AbstractActivation():
            slope = lambda x: jax.jvp(activation, (x,), (jnp.ones_like(x),))[1]
            return stax.ElementwiseNumerical(activation, degree, df=slope)
        case _:
            raise TypeError(f"The activation {activation!r} has no counterpart in neural-tangents.")


def _residual(stax, skip, branch) -> Any:
    """skip h + branch(h)."""
    one = is_concrete(skip) and bool(skip == 1)
    connection = stax.Identity() if one else stax.DotGeneral(lhs=skip)
    return stax.serial(stax.FanOut(2), stax.parallel(connection, branch), stax.FanInSum())


def _inputs(name: str, value: ArrayLike) -> Array:
    array = as_real_array(name, value)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"`{name}` must have shape (inputs, features), got {array.shape}.")
    return array


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """neural-tangents warns of numerical integration and of sums: our docstrings say so instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
