"""A function over many inputs on all local devices: round after round of one compiled program."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._support.interrupt import in_turn

_SHARED, _APART = PartitionSpec(), PartitionSpec("device")


def rounds(
    function: Callable[[Any, jax.Array], Any],
    common: Any,
    inputs: Callable[[int], Any],
    starts: Iterable[int],
) -> Iterator[Any]:
    """For every start, `function(common, share)` of the inputs that begin there, in order.

    - `function`: arrays in, arrays out, each with a leading axis over inputs; of one device's share.
    - `common`: arguments shared by all inputs, arrays and anything else.
    - `inputs`: the inputs of a round; so many on each device.
    """
    mesh = Mesh(np.array(jax.local_devices()), ("device",))
    apart = NamedSharding(mesh, _APART)
    launch = lambda start: _round(function, common, jax.device_put(inputs(start), apart), mesh)
    yield from in_turn(launch, starts)


@eqx.filter_jit
def _round(function: Callable[[Any, jax.Array], Any], common: Any, inputs: jax.Array, mesh: Mesh) -> Any:
    arrays, static = eqx.partition(common, eqx.is_array)
    one_share = lambda arrays, inputs: function(eqx.combine(arrays, static), inputs)
    specs = {"in_specs": (_SHARED, _APART), "out_specs": _APART}
    return jax.shard_map(one_share, mesh=mesh, check_vma=False, **specs)(arrays, inputs)
