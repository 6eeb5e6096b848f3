"""Functions whose derivative rule survives any nest of JAX's transformations."""

from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.core
import jax.numpy as jnp


def with_derivative(
    name: str,
    function: Callable[..., Any],
    rule: Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Any, Any]],
) -> Callable[..., Any]:
    """`function` with a JVP rule, (primals, tangents) -> (outputs, tangents), tangents being None where
    they are zero; arguments of any kind, arrays being traced.

    A primitive of its own, since `jax.custom_jvp` is dropped where a scan is partially evaluated, as
    reverse mode over reverse mode does: a loop inside the function then has no derivative, and an
    expectation the naive one, which is not finite on singular kernels.
    """

    def shapes(*args: Any) -> Any:
        of = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type)
        struct = lambda x: of(x) if isinstance(x, abstract) else x
        abstract = jax.core.ShapedArray
        out = eqx.filter_eval_shape(function, *jax.tree.map(struct, args))
        shaped = lambda x: abstract(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x
        return jax.tree.map(shaped, out)

    def transpose(inputs: Any, cotangents: Any) -> NoReturn:
        del inputs, cotangents
        raise TypeError(f"`{name}` is not linear.")

    primitive = eqxi.create_vprim(
        f"kernelode_{name}",
        eqxi.filter_primitive_def(function),
        eqxi.filter_primitive_def(shapes),
        eqxi.filter_primitive_jvp(rule),
        eqxi.filter_primitive_transpose(transpose),
    )
    eqxi.register_impl_finalisation(primitive)
    by_custom_jvp = eqx.filter_custom_jvp(function)
    by_custom_jvp.def_jvp(rule)

    def call(*args: Any) -> Any:
        if _closes_over_tracers(args):
            return by_custom_jvp(*args)
        return eqxi.filter_primitive_bind(primitive, *args)

    return call


def _closes_over_tracers(args: tuple[Any, ...]) -> bool:
    """Whether a function among the arguments refers to values of an outer transformation, which a
    primitive cannot take along."""
    functions = [leaf for leaf in jax.tree.leaves(args) if callable(leaf) and not eqx.is_array(leaf)]
    number = jax.ShapeDtypeStruct((), jnp.result_type(float))
    refers = lambda f: any(isinstance(c, jax.core.Tracer) for c in jax.make_jaxpr(f)(number).consts)
    return any(refers(f) for f in functions)
