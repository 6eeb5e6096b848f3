"""kernelode inside another JAX program: jit, vmap, grad and sharding over devices.

A network is a pytree and a response a JAX function of it, so that nothing special is to be done: the
log response of an input and its derivative by rho, for many scales at once, spread over all
devices. On the grid the derivative changes sign where `optimal_residual_scale` finds rho*.

`python examples/inside_jax.py [--scales 64]` prints the devices, the largest response on the grid, rho*.
To try several devices on a CPU:
`XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/inside_jax.py`
"""

import argparse
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import kernelode as ko

KERNEL = np.array([[0.05]])  # of one input


def log_response(scale, network: ko.ResNet):
    """log chi_out, as a function of rho."""
    network = eqx.tree_at(lambda n: n.residual_scale, network, scale)
    return jnp.log(ko.response(network, KERNEL).diagonal[0])


def sweep(network: ko.ResNet, scales):
    """log chi_out and d log chi_out / d rho at `scales`, computed where each of them lies."""
    mesh = jax.make_mesh((jax.device_count(),), ("scale",), axis_types=(AxisType.Auto,))
    over_devices = NamedSharding(mesh, PartitionSpec("scale"))
    both = jax.vmap(jax.value_and_grad(log_response), in_axes=(0, None))
    return eqx.filter_jit(both)(jax.device_put(scales, over_devices), network)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the largest response on the grid, and rho*."""
    parser = argparse.ArgumentParser(description="A sweep of rho over all devices.")
    parser.add_argument("--scales", type=int, default=64, help="a multiple of the number of devices")
    options = parser.parse_args(arguments)
    if options.scales % jax.device_count():
        parser.error(f"--scales must be a multiple of the number of devices, {jax.device_count()}.")
    jax.config.update("jax_enable_x64", True)

    network = ko.ResNet(ko.Erf(), depth=50, weight_variance=1.25, bias_variance=0.05)
    scales = np.geomspace(0.02, 1, options.scales)
    values, slopes = sweep(network, scales)
    print(f"{jax.device_count()} device(s); shards of {[s.data.size for s in values.addressable_shards]}")
    best = int(jnp.argmax(values))
    print(
        f"largest on the grid: chi_out = {float(jnp.exp(values[best])):.5f} at rho = {scales[best]:.4f}"
    )
    last_rise = int(np.max(np.nonzero(np.asarray(slopes) > 0)))
    print(f"the derivative changes sign between {scales[last_rise]:.4f} and {scales[last_rise + 1]:.4f}")
    found = ko.optimal_residual_scale(network, KERNEL, pairs=False).diagonal
    print(f"rho* = {float(found.value[0]):.8f}, chi_out = {float(found.response[0]):.8f}")


if __name__ == "__main__":
    main()
