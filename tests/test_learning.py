"""`kernelode.learning`: regression with the kernel of a wide network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

import kernelode as ko

from .helpers import central_difference, relative_error

TRAIN, OTHERS = 9, 4


def _problem(seed=0, outputs=2):
    """The output kernel of a small network on random inputs, and targets."""
    x, y, ridge = (
        jax.random.normal(key, shape)
        for key, shape in zip(
            jax.random.split(jax.random.key(seed), 3), ((TRAIN + OTHERS, 3), (TRAIN, outputs), (TRAIN,))
        )
    )
    network = ko.ResNet(ko.Erf(), 3, residual_scale=0.7, bias_variance=0.1)
    last = ko.propagate(network, ko.input_kernel(x)).mean_kernel[-1]
    variances = jnp.diagonal(last)
    output = network.read_out(ko.Block(variances, variances, last))
    own = jnp.eye(len(last), dtype=bool)
    return jnp.where(own, output.row, output.cross), y, ridge**2


KERNEL, TARGETS, NOISE = _problem()


def test_posterior_is_that_of_a_normal_law():
    found = ko.learning.posterior(KERNEL, TARGETS, ridge=NOISE, amplitude=1.7)
    joint = 1.7 * np.array(KERNEL)
    joint[:TRAIN, :TRAIN] += 1.7 * np.diag(NOISE)
    seen = np.linalg.inv(joint[:TRAIN, :TRAIN])
    assert relative_error(found.mean, joint[TRAIN:, :TRAIN] @ seen @ TARGETS) < 1e-11
    covariance = joint[TRAIN:, TRAIN:] - joint[TRAIN:, :TRAIN] @ seen @ joint[:TRAIN, TRAIN:]
    assert relative_error(found.covariance, covariance) < 1e-11
    assert relative_error(found.variance, np.diagonal(covariance)) < 1e-11
    law = scipy.stats.multivariate_normal(np.zeros(TRAIN), joint[:TRAIN, :TRAIN])  # pyright: ignore
    assert relative_error(found.log_evidence, np.sum(law.logpdf(np.array(TARGETS).T))) < 1e-11


def test_leave_one_out_is_leaving_out():
    found = ko.learning.posterior(KERNEL, TARGETS, ridge=NOISE, amplitude=1.7)
    for left in range(TRAIN):
        order = np.array([k for k in range(TRAIN) if k != left] + [left])
        some = KERNEL[np.ix_(order, order)]
        without = ko.learning.posterior(
            some, TARGETS[order[:-1]], ridge=NOISE[order[:-1]], train=TRAIN - 1, amplitude=1.7
        )
        assert relative_error(found.leave_one_out[left], without.mean[0]) < 1e-10
        variance = without.variance[0] + 1.7 * NOISE[left]
        assert relative_error(found.leave_one_out_variance[left], variance) < 1e-10


def test_posterior_is_that_of_scikit_learn():
    x = np.array(jax.random.normal(jax.random.key(3), (TRAIN + OTHERS, 2)))
    judge = GaussianProcessRegressor(kernels.RBF(0.8), alpha=0.05, optimizer=None)  # pyright: ignore
    judge.fit(x[:TRAIN], np.array(TARGETS[:, 0]))
    mean, covariance = judge.predict(x[TRAIN:], return_cov=True)
    found = ko.learning.posterior(np.array(kernels.RBF(0.8)(x)), TARGETS[:, 0], ridge=0.05)
    assert found.mean.shape == (OTHERS,) and found.leave_one_out.shape == (TRAIN,)
    assert relative_error(found.mean, mean) < 1e-10
    assert relative_error(found.covariance, covariance) < 1e-9
    assert relative_error(found.log_evidence, judge.log_marginal_likelihood()) < 1e-10


def test_fitted_amplitude_has_the_largest_evidence():
    evidence = lambda s: ko.learning.posterior(KERNEL, TARGETS, ridge=0.1, amplitude=s).log_evidence
    fitted = ko.learning.posterior(KERNEL, TARGETS, ridge=0.1, amplitude=None)
    assert relative_error(fitted.log_evidence, evidence(fitted.amplitude)) < 1e-12
    assert abs(jax.grad(evidence)(fitted.amplitude)) < 1e-9
    assert jax.grad(jax.grad(evidence))(fitted.amplitude) < 0


def test_block_gives_the_same():
    variances = jnp.diagonal(KERNEL)
    block = ko.Block(variances, variances[:TRAIN], KERNEL[:, :TRAIN])
    whole = ko.learning.posterior(KERNEL, TARGETS, ridge=0.1)
    found = ko.learning.posterior(block, TARGETS, ridge=0.1)
    assert found.covariance is None
    for name in ("mean", "variance", "log_evidence", "leave_one_out"):
        assert relative_error(getattr(found, name), getattr(whole, name)) < 1e-12


def test_gradients_by_finite_differences():
    direction = KERNEL @ KERNEL / jnp.max(KERNEL)

    def height(t):
        found = ko.learning.posterior(KERNEL + t * direction, TARGETS, ridge=0.1 + t, amplitude=None)
        return found.log_evidence + jnp.sum(found.leave_one_out**2) + jnp.sum(found.variance)

    slope = jax.jit(jax.grad(height))(0.0)
    assert relative_error(slope, central_difference(jax.jit(height), 0.0, 1e-4)) < 1e-8


def test_float32():
    single = ko.learning.posterior(KERNEL.astype(jnp.float32), TARGETS, ridge=0.1)
    assert single.mean.dtype == single.log_evidence.dtype == jnp.float32
    assert relative_error(single.mean, ko.learning.posterior(KERNEL, TARGETS, ridge=0.1).mean) < 1e-4


def test_repeated_inputs_need_a_ridge():
    kernel = jnp.ones((3, 3))
    with pytest.raises(Exception, match="has no Cholesky factor"):
        ko.learning.posterior(kernel, [1.0, 2.0], ridge=0.0)
    found = ko.learning.posterior(kernel, [1.0, 2.0], ridge=0.0, throw=False)
    assert found.result == ko.RESULTS.singular_kernel and not jnp.isfinite(found.log_evidence)
    assert ko.learning.posterior(kernel, [1.0, 2.0], ridge=0.1).result == ko.RESULTS.successful


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(targets=TARGETS[None]), r"`targets` must have shape \(train,\) or"),
        (dict(train=4), "`targets` must be 4, one for each training input, got 9"),
        (dict(kernel=KERNEL[:5, :5]), "must have the 9 training inputs first"),
        (dict(ridge=-0.1), "`ridge` must not be negative"),
        (dict(ridge=jnp.ones(3)), r"`ridge` must have shape \(\) or \(9,\), got \(3,\)"),
        (dict(amplitude=0.0), "`amplitude` must be positive"),
        (dict(kernel=-KERNEL), "non-negative diagonal"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = dict(kernel=KERNEL, targets=TARGETS, ridge=0.1) | change
    with pytest.raises(ValueError, match=message):
        ko.learning.posterior(arguments.pop("kernel"), arguments.pop("targets"), **arguments)
