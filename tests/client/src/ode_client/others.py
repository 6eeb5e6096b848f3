"""A network written for neural-tangents; regression with a kernel."""

from jaxtyping import Array, Float

import kernelode as ko


def translate(x: Float[Array, "n d"]) -> tuple[ko.MLP | ko.ResNet, Float[Array, "..."]]:
    """Theirs as ours, and its kernel by them."""
    network = ko.baselines.from_stax(
        lambda stax: stax.serial(stax.Dense(8), stax.Erf(), stax.Dense(8), stax.Erf(), stax.Dense(1))
    )
    init_fn, _, _ = ko.baselines.stax_network(network, width=8)
    assert callable(init_fn) and callable(ko.baselines.load_neural_tangents().stax.Dense)
    return network, ko.baselines.neural_tangents_kernels(network, x)["nngp"]


def condition(
    kernel: Float[Array, "n n"], targets: Float[Array, " train"]
) -> tuple[Float[Array, "..."], Float[Array, ""]]:
    """Predictions at the inputs without targets, and the evidence of those with."""
    found: ko.learning.Posterior = ko.learning.posterior(kernel, targets, ridge=0.1, amplitude=None)
    assert found.result == ko.RESULTS.successful
    return found.mean, found.log_evidence
