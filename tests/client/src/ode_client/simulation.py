"""Networks of finite width, and the theory beside them."""

import os
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

import kernelode as ko


class Simulation(NamedTuple):
    """What was drawn, and how it compares."""

    ensemble: ko.ensemble.Ensemble
    comparison: ko.Comparison
    largest: str


def simulate(
    network: ko.ResNet, kernel: Float[Array, "n n"], folder: os.PathLike[str] | str
) -> Simulation:
    """Two ensembles of small networks."""
    numbers: list[int] = []
    path = os.path.join(folder, "ensemble.npz")
    drawn = ko.ensemble.sample(
        network,
        kernel,
        width=16,
        samples=512,
        key=jax.random.key(0),
        layers=[0, network.depth],
        sampler=ko.ensemble.BlockLaw(),
        start=ko.GaussianRows(),
        checkpoint=path,
        progress=numbers.append,
    )
    wider = ko.ensemble.sample(
        network,
        kernel,
        width=32,
        until=ko.ensemble.RelativeError(0.5, of="kernel_covariance"),
        samples=1024,
        key=jax.random.key(1),
        layers=[0, network.depth],
    )
    assert isinstance(ko.ensemble.AbsoluteError(0.1).reached(wider), bool)
    assert ko.ensemble.Ensemble.load(path).samples == drawn.samples == numbers[-1]
    estimates: ko.ensemble.Estimates = drawn.controlled
    measured: ko.ensemble.Measured = estimates.mean_correction
    error: np.ndarray = measured.map(lambda k: k[:, 0, 0]).standard_error
    assert error.shape == (2,)
    limit: ko.ensemble.Extrapolation = ko.ensemble.extrapolate(drawn, wider)
    theory = ko.propagate(network, kernel, closure=ko.WickTower(8))
    comparison = ko.compare(theory, limit, quantities=("mean_correction",))
    row = comparison.largest(1)[0]
    return Simulation(drawn, ko.compare(theory, drawn), f"{row.quantity} {row.labels} {row.z:.1f}")


def from_data(network: ko.MLP, x: Float[Array, "n d"]) -> ko.ensemble.Ensemble:
    """With weights drawn one by one, and inputs in place of their kernel."""
    return ko.ensemble.sample(
        network,
        ko.ensemble.Data(x),
        width=8,
        samples=64,
        key=jax.random.key(2),
        sampler=ko.ensemble.RealWeights(),
        tangent_kernel=True,
    )


def other_starts(network: ko.ResNet, kernel: Float[Array, "n n"]) -> list[Float[Array, "times n n n n"]]:
    """V4 from other starts than Gaussian neurons."""
    n = kernel.shape[0]
    still = ko.RandomCovariance(np.zeros((n, n, n, n)), shift=np.zeros((n, n)))
    starts = [ko.FixedGram(), ko.GaussianRows(), still]
    closures = [ko.WickTower(8, start=start) for start in starts]
    return [ko.propagate(network, kernel, closure=closure).kernel_covariance for closure in closures]
