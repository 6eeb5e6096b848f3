"""Kernels, their moments of order 1/n, responses and expectations."""

from typing import NamedTuple

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float

import kernelode as ko

from .networks import activations, depth_of, kind_of, layer_of, networks, slopes
from .untyped import array, diagonal


class Kernels(NamedTuple):
    """What is computed."""

    output: Float[Array, "n n"]
    mean_kernel: Float[Array, "times n n"]
    covariance: Float[Array, "times n n n n"]
    pairs: Float[Array, "times n n 3 3"]
    spread: Float[Array, "times n n"]
    response: ko.Response
    layer_response: ko.LayerResponse
    validity: ko.ClosureValidity
    correction: ko.ResponseCorrection
    moments: dict[tuple[int, int], ko.Estimate]


def on_pairs(closure: ko.AbstractClosure) -> ko.AbstractPairClosure | None:
    """A closure's form on pairs of inputs, if it has one."""
    if isinstance(closure, ko.AbstractPairClosure):
        return closure
    assert isinstance(closure, ko.AbstractMomentClosure)
    return closure.pairs() if isinstance(closure, ko.AbstractPairable) else None


def largest(kernel: ko.AbstractKernel) -> Float[Array, ""]:
    """The largest variance, whatever the kind."""
    return jnp.max(kernel.variances)


def upstream(start: ko.AbstractStart, inputs: int) -> bool:
    """Whether the first layer's kernel fluctuates beyond the sampling of its neurons."""
    return start.moments(inputs) is not None


def kernels(x: Float[Array, "n d"]) -> Kernels:
    """Of the project's networks."""
    residual, forward = networks()
    kernel = ko.input_kernel(x, 1.0, bias_variance=0.1)
    wick = ko.WickTower(order=8)
    layers = ko.propagate(residual, kernel, closure=wick)
    assert bool(layers.result == ko.RESULTS.successful)
    feed_forward: ko.Solution = ko.propagate(forward, forward.read_in(x), layers=[0, 2], throw=False)
    flow = ko.solve(
        residual,
        kernel,
        ts=[0.1, 0.2],
        closure=ko.MeanOnly(),
        solver=diffrax.Heun(),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-8),
    )
    rates = ko.LearningRates(1.0, bias=[0.5, 0.5], input_weight=2.0)
    tangents = ko.propagate(residual, kernel, closure=ko.TangentKernel(rates, tangent=kernel))
    ntk: ko.TangentReadOut = tangents.read_out
    assert tangents.tangent_kernel.shape == ntk.tangent_kernel.shape
    assert isinstance(tangents.closure, ko.AbstractTangentClosure)
    tower = ko.propagate_pairs(residual, kernel, closure=ko.TangentTower(4, rates, single_order=8))
    statistics: ko.TangentMoments = tower.tangent
    assert statistics.cross.shape == (*statistics.variance.shape, 2, 2, 2, 2)
    differentials = ko.propagate(forward, forward.read_in(x), closure=ko.TangentDifferential(rates))
    differential: ko.DifferentialMoments = differentials.differential
    assert differential.tangent_change(outputs=2).shape == differential.Q.shape
    of_tangents: ko.TangentAtWidth = statistics.at_width(256)
    pairs = ko.propagate_pairs(residual, kernel, closure=ko.GOnly())
    flow_of_pairs = ko.solve_pairs(residual, kernel, [0.1], closure=ko.GOnly(), max_steps=100)
    at_width: ko.AtWidth = layers.at_width(256)
    moments: ko.WidthMoments = layers.moments
    last = layers.mean_kernel[-1]
    block = residual.read_out(ko.Block(diagonal(last), diagonal(last), last))
    variances: ko.Variances = residual.read_out(ko.Variances(diagonal(last)))
    state = ko.MeanOnly().init(residual, last)
    assert isinstance(state, ko.Triangle)
    half: ko.Triangle = residual.read_out(state)
    _, responses = ko.response_flow(residual, kernel, [0.1])
    residuals: ko.ClosureResidual = ko.closure_residual(
        residual, pairs.mean_kernel, pairs.kernel_covariance, pairs.mean_correction
    )
    mismatch = ko.source_mismatch(residual, kernel, [0.1])
    one, q, c = array(1.0), array([1.0, 1.2]), array([[1.0, 0.4], [0.4, 1.2]])
    expected = ko.pair_moments(ko.Tanh(), q, q, c, order=1)
    coefficients: ko.Estimate = ko.pair_coefficients(ko.Erf(), one, 1.2 * one, 0.4 * one, 2)
    checks = [
        feed_forward.mean_kernel,
        flow.mean_kernel,
        flow_of_pairs.mean_correction,
        moments.mean_correction,
        variances.values,
        half.cross,
        largest(half),
        responses.output.diagonal,
        residuals.mean_kernel,
        mismatch,
        of_tangents.mean,
        ko.variance_derivatives(ko.Erf(), q, 2).value,
        ko.hermite_spectrum(ko.Erf(), one, 4).error,
        ko.single_moments(ko.GELU(), q, (0, 0, 1, 1)).value,
        coefficients.value,
    ]
    assert all(bool(jnp.all(jnp.isfinite(check))) for check in checks)
    assert depth_of(residual)[0] == 3
    assert float(layer_of(residual, 1)[1]) > 0
    assert [kind_of(activation) for activation in (ko.Tanh(), ko.Softplus(), ko.Sin())] == [
        "autonomous, of degree 2",
        "straight, 1.0",
        "odd",
    ]
    closure = on_pairs(wick)
    assert closure is not None and not upstream(ko.GaussianRows(), 2)
    again = ko.propagate_pairs(residual, ko.checked_kernel(kernel), closure=closure, layers=[2])
    assert bool(jnp.all(jnp.isfinite(again.mean_correction)))
    assert [slopes(activation) for activation in activations().values()].count(None) == 14
    return Kernels(
        output=block.cross,
        mean_kernel=layers.mean_kernel,
        covariance=layers.kernel_covariance,
        pairs=pairs.kernel_covariance,
        spread=at_width.standard_deviation,
        response=ko.response(residual, kernel),
        layer_response=ko.layer_response(residual, kernel),
        validity=ko.closure_validity(residual, kernel, [64, 256], tolerance=0.1),
        correction=ko.response_correction(residual, kernel, closure=ko.WickTower(8)),
        moments=expected,
    )
