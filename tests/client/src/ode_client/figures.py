"""Every figure, on axes of the project's own."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import kernelode as ko
from kernelode import plot

from .simulation import Simulation


def weight_variance(network: ko.ResNet) -> Float[Array, ""]:
    """What is swept. (pyright knows no type for the argument of a lambda in a named tuple.)"""
    return network.weight_variance


def draw(network: ko.ResNet, kernel: Float[Array, "n n"], simulation: Simulation) -> list[Axes]:
    """One axes for each."""
    layers = ko.propagate(network, kernel, closure=ko.WickTower(8))
    scales = jnp.geomspace(0.1, 1.0, 4)
    responses = ko.layer_response(network, kernel)
    optimum = ko.optimal_residual_scale(network, kernel)
    law = ko.optimal_flow_time(network, kernel)
    elements = [(0, 0), (0, 1)]
    measured = simulation.ensemble.mean_kernel
    points = (simulation.ensemble.ts, measured.value, measured.standard_error)
    curves = {"Wick tower": layers.mean_correction[:, 0, 0]}

    def at(scale: Float[Array, ""]) -> ko.Response:
        return ko.response(ko.ResNet(ko.Erf(), 3, residual_scale=scale), kernel)

    grid = ko.sweep(
        lambda target: ko.response(target, kernel).diagonal,
        network,
        {"bias_variance": [0.05, 0.1], "weight": ko.Axis([1.0, 1.2, 1.4], weight_variance)},
        dims={"value": ("input",)},
    )
    axes = iter(Figure().subplots(5, 2).flat)
    return [
        plot.plot_kernel_at_width(
            next(axes), layers.ts, layers.at_width(64), layers.mean_kernel, elements
        ),
        plot.plot_kernel_against_depth(
            next(axes), layers.ts, layers.mean_kernel, elements, measured=points
        ),
        plot.plot_response_against_depth(next(axes), layers.ts, responses.chi, elements),
        plot.plot_response_against_scale(next(axes), scales, jax.vmap(at)(scales), optimum),
        plot.plot_evidence_against_scale(next(axes), scales, -scales, np.asarray(scales), optimum),
        plot.plot_scale_against_depth(next(axes), [network.depth], [optimum], law),
        plot.plot_moment_by_closure(next(axes), layers.ts, curves, "$K_1$"),
        plot.plot_comparison(next(axes), simulation.comparison, "mean_correction", [(0, 1)]),
        plot.plot_sweep(next(axes), grid["value"].isel(input=0)),
        plot.plot_kernel_matrix(next(axes), kernel, layers.mean_kernel[-1]),
    ]
