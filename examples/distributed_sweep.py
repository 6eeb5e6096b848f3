"""A sweep by several processes, on one machine or on many.

Every process runs this same script. `ko.sweep` gives each a share of the points, computes it on the
process's own devices, and returns all points in all of them. Under Slurm, Open MPI or on Cloud TPUs,
`jax.distributed.initialize()` finds out by itself who is who:

    srun python examples/distributed_sweep.py --folder out

Elsewhere, say so; here two processes on one machine:

    options="--folder out --coordinator localhost:12345 --processes 2"
    python examples/distributed_sweep.py $options --process 0 &
    python examples/distributed_sweep.py $options --process 1

The folder has to be one that all processes see. A run that was stopped goes on from there, with as many
processes as there are then.
"""

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import kernelode as ko


def main(arguments: Sequence[str] | None = None) -> None:
    """Sweep, and print a line from the first process."""
    parser = argparse.ArgumentParser(description="Responses, by several processes.")
    parser.add_argument("--folder", help="where to keep results; seen by all processes")
    parser.add_argument("--points", type=int, default=100, help="points along each of two axes")
    parser.add_argument("--coordinator", help="host:port of the first process")
    parser.add_argument("--processes", type=int, help="how many there are")
    parser.add_argument("--process", type=int, help="the number of this one, from 0")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    # Before anything else asks JAX for its devices.
    jax.distributed.initialize(options.coordinator, options.processes, options.process)

    kernel = jnp.array([[0.05]])
    network = ko.ResNet(ko.Erf(), 50, bias_variance=0.05)
    axes = {
        "residual_scale": np.geomspace(0.02, 1.0, options.points),
        "weight_variance": np.linspace(0.8, 2.0, options.points),
    }
    first = jax.process_index() == 0
    response = lambda net: ko.response(net, kernel).diagonal[0]
    found = ko.sweep(response, network, axes, folder=options.folder, progress=first)["value"]
    if first:
        best = found.idxmax("residual_scale")
        print(f"{jax.process_count()} processes, {jax.device_count()} devices, {found.size} points")
        print(f"largest response between rho = {float(best.min()):.4f} and {float(best.max()):.4f}")


if __name__ == "__main__":
    main()
