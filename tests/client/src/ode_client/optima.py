"""Optimal residual scales, searches, and derivatives of them."""

from typing import NamedTuple

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernelode as ko

from .untyped import adam, bfgs, gradient, with_leaf


class Optima(NamedTuple):
    """What is searched."""

    scale: ko.OptimalScale
    time: ko.OptimalTime
    by_gradient: ko.Optimum
    by_newton: ko.Optimum
    correction: ko.ScaleCorrection
    slope: Float[Array, ""]


def optima(network: ko.ResNet, kernel: Float[Array, "n n"]) -> Optima:
    """For every element of a kernel."""
    scale = ko.optimal_residual_scale(network, kernel)
    summary: ko.Summary = scale.off_diagonal.summary()
    assert summary.count == kernel.shape[0] * (kernel.shape[0] - 1) // 2
    estimate: ko.ScaleEstimate = scale.diagonal
    assert bool(jnp.all((estimate.status == ko.STATUS.interior) == estimate.interior))
    responses: ko.ResponseSummary = ko.response(network, kernel).summary()
    pairs: ko.Spread = responses.off_diagonal
    assert pairs.count == summary.count
    time = ko.optimal_flow_time(network, kernel, adjoint=diffrax.RecursiveCheckpointAdjoint())
    law: ko.TimeEstimate = time.diagonal
    assert law.residual_scale(network.depth).shape == estimate.value.shape

    def mean_optimum(bias_variance: Float[Array, ""]) -> Float[Array, ""]:
        changed = with_leaf(network, lambda n: n.bias_variance, bias_variance)
        return jnp.mean(ko.optimal_residual_scale(changed, kernel, pairs=False).diagonal.value)

    def objective(candidate: ko.ResNet) -> Float[Array, ""]:
        return jnp.mean(jnp.log(ko.response(candidate, kernel).diagonal))

    def scale_of(candidate: ko.ResNet) -> Float[Array, ""]:
        return candidate.residual_scale

    return Optima(
        scale=scale,
        time=time,
        by_gradient=ko.optimise(objective, network, scale_of, optimiser=adam(0.1), tolerance=1e-3),
        by_newton=ko.optimise(
            ko.OffDiagonalResponse(kernel),
            network,
            lambda n: n.residual_scale,
            optimiser=bfgs(1e-4),
        ),
        correction=ko.residual_scale_correction(network, kernel, closure=ko.WickTower(8)),
        slope=gradient(mean_optimum)(network.bias_variance),
    )


def diagonal(kernel: Float[Array, "n n"]) -> ko.DiagonalResponse:
    """The objective by its name."""
    return ko.DiagonalResponse(kernel)
