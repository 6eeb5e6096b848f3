"""The optimal residual scale of handwritten digits at several depths, against the law of large depth.

A residual network of L blocks passes on most of a small difference between its inputs at a residual
scale rho* that falls with depth. For many blocks it follows from a flow in continuous depth:

    rho* = sqrt((t* + t1/L) / L),

where t* is the depth of the flow at which the response is largest and t1 the first correction. The
table compares both, as mean and standard deviation over inputs (diagonal elements) and over pairs of
inputs (off-diagonal elements). It needs scikit-learn, for the digits:

    pip install "kernelode[data]"
    python examples/optimal_residual_scale.py [--inputs 8] [--depths 10 50 100 200]
"""

import argparse
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import kernelode as ko


def digits_kernel(inputs: int, mean_variance: float = 0.05):
    """The input kernel of the first threes and sevens, with variances of `mean_variance` on average."""
    images, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
    kernel = ko.input_kernel(images[np.isin(labels, (3, 7))][:inputs])
    return kernel * (mean_variance / jnp.mean(jnp.diagonal(kernel)))


def network(depth: int, deepest: int) -> ko.ResNet:
    """A network of `depth` blocks, as one of `deepest` blocks of which the later ones are switched off.

    Depth is static: with networks of different depths each would be compiled anew. Scales are traced.
    """
    switched_on = np.where(np.arange(deepest) < depth, 1.0, 0.0)
    return ko.ResNet(
        ko.Erf(), deepest, residual_scale=switched_on, weight_variance=1.25, bias_variance=0.05
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="rho* of the digits at several depths.")
    parser.add_argument("--inputs", type=int, default=8, help="how many images (at least 2)")
    parser.add_argument("--depths", type=int, nargs="+", default=[10, 50, 100, 200])
    options = parser.parse_args(arguments)
    if options.inputs < 2 or min(options.depths) < 1:
        parser.error("--inputs must be at least 2 and --depths at least 1.")
    jax.config.update("jax_enable_x64", True)

    kernel = digits_kernel(options.inputs)
    deepest = max(options.depths)
    flow = ko.optimal_flow_time(network(deepest, deepest), kernel)
    pairs = np.triu_indices(options.inputs, 1)

    print(f"Digits 3, 7: {options.inputs} inputs, {len(pairs[0])} pairs. erf, C_W = 1.25, C_b = 0.05")
    print("rho*: mean +- standard deviation over the elements; law: the mean of sqrt((t* + t1/L)/L)\n")
    print(f"{'L':>5}  {'diagonal':>19}  {'law':>8}  {'off-diagonal':>19}  {'law':>8}  interior")
    for depth in options.depths:
        exact = ko.optimal_residual_scale(network(depth, deepest), kernel)
        # The search varies the root mean square over all blocks, off ones included.
        unit = math.sqrt(deepest / depth)
        cells, interior = [], []
        for found, limit, chosen in (
            (exact.diagonal, flow.diagonal, ...),
            (exact.off_diagonal, flow.off_diagonal, pairs),
        ):
            summary = found.summary()
            # Only elements with an interior optimum have a number.
            both = np.asarray(found.interior & limit.interior)[chosen]
            law = np.asarray(limit.residual_scale(depth))[chosen][both]
            predicted = f"{np.mean(law):8.5f}" if law.size else f"{'-':>8}"
            mean, spread = unit * summary.mean, unit * summary.standard_deviation
            cells.append(f"{mean:8.5f} +- {spread:7.5f}  {predicted}")
            interior.append(f"{summary.interior_fraction:.0%}")
        print(f"{depth:>5}  {'  '.join(cells)}  {' / '.join(interior)}")


if __name__ == "__main__":
    main()
