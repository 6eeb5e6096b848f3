"""Regression with the network's Gaussian process: log evidence and held-out error at a residual scale.

The amplitude of the kernel, C_W of the read-out, drops out of rho*; here the training targets fit it.
The noise is in proportion to the mean variance of the training samples, so that nothing depends on the
unit of the kernel.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import kernelode as ko

from .data import DataSet


class Scores(NamedTuple):
    """At one residual scale, or arrays over many. NaN where the kernel overflows or is singular.

    - `log_evidence`: nats a training sample.
    - `squared_error`: of the held-out targets, mean over samples, sum over outputs.
    - `error_rate`: share of held-out samples in the wrong class; NaN for real targets.
    """

    log_evidence: Array
    squared_error: Array
    error_rate: Array


class Problem(eqx.Module):
    """A regression: rows are training, then held-out samples; columns training samples."""

    block: ko.Block
    train_targets: Float[Array, "train outputs"]
    test_targets: Float[Array, "test outputs"]
    one_hot: bool = eqx.field(static=True)
    noise: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Split:
    """Which samples train and which are held out."""

    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]


def build_problem(data: DataSet, split: Split, factor: float, noise: float) -> Problem:
    """The regression of the labels of `data`, whose input kernel is multiplied by `factor`."""
    assert data.labels is not None
    samples = np.concatenate([split.train, split.test])
    train, kernel = len(split.train), data.kernel(samples, factor)
    variances = np.diagonal(kernel)
    targets, one_hot = regression_targets(data.labels, split.train)
    return Problem(
        block=ko.Block(*map(jnp.asarray, (variances, variances[:train], kernel[:, :train]))),
        train_targets=jnp.asarray(targets[split.train]),
        test_targets=jnp.asarray(targets[split.test]),
        one_hot=one_hot,
        noise=jnp.asarray(noise),
    )


def are_classes(labels: np.ndarray) -> bool:
    """Whether labels name classes: texts, or whole numbers that come five times each or more often."""
    if labels.dtype.kind == "U":
        return True
    return bool(np.all(labels == np.round(labels))) and 5 * len(np.unique(labels)) <= len(labels)


def regression_targets(labels: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, bool]:
    """One-hot columns for classes; else one column, standardised by the training labels."""
    if are_classes(labels):
        names, index = np.unique(labels, return_inverse=True)
        return np.eye(len(names))[index], True
    spread = np.std(labels[train])
    return ((labels - np.mean(labels[train])) / (spread if spread > 0 else 1.0))[:, None], False


def posterior_scores(network: ko.ResNet, problem: Problem, scale: Float[Array, ""]) -> Scores:
    """Scores at the residual scale `scale`, which is traced: one compilation serves a sweep."""
    output = _output_kernel(network, problem.block, scale)
    if not all(bool(jnp.all(jnp.isfinite(part))) for part in jax.tree.leaves(output)):
        nothing = jnp.full((), jnp.nan)
        return Scores(nothing, nothing, nothing)
    found = ko.learning.posterior(
        output,
        problem.train_targets,
        ridge=problem.noise * jnp.mean(output.column),
        amplitude=None,
        throw=False,
    )
    log_evidence = found.log_evidence / len(problem.train_targets)
    return Scores(log_evidence, *_held_out_errors(problem, found.mean))


@eqx.filter_jit
def _output_kernel(network: ko.ResNet, block: ko.Block, scale: Float[Array, ""]) -> ko.Block:
    network = eqx.tree_at(lambda n: n.residual_scale, network, scale)
    last = ko.propagate(network, block, layers=[network.depth], throw=False).state
    return network.read_out(jax.tree.map(lambda x: x[0], last))


def _held_out_errors(problem: Problem, predicted: Float[Array, "test outputs"]) -> tuple[Array, Array]:
    squared = jnp.mean(jnp.sum((predicted - problem.test_targets) ** 2, axis=1))
    if not problem.one_hot:
        return squared, jnp.full((), jnp.nan, squared.dtype)
    wrong = jnp.argmax(predicted, axis=1) != jnp.argmax(problem.test_targets, axis=1)
    return squared, jnp.where(jnp.isfinite(squared), jnp.mean(wrong.astype(squared.dtype)), jnp.nan)
