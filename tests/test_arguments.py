"""Wrong arguments: each gets one sentence that names the argument, what it got and what it needs.

In a process of its own: here the types of all arguments are checked by beartype before ours are.
"""

import json
import re

import pytest

from .test_package import run_python

SETUP = """
import json, warnings
import jax, jax.numpy as jnp, numpy as np, kernelode as ko, diffrax, optax
K = jnp.array([[0.5, 0.2], [0.2, 0.8]])
net = ko.ResNet(ko.Erf(), 3, residual_scale=0.3)
mlp = ko.MLP(ko.Erf(), 3)
a = jnp.array([0.5, 0.8])
half = lambda x: jnp.asarray(x, jnp.float16)
D = ko.DiagonalResponse(K)
S = ko.propagate(net, K)
M = ko.propagate(net, K, closure=ko.GOnly())
SCALE = lambda n: n.residual_scale
KEY = jax.random.key(0)
import kernelode.plot
class AX: plot = set_xlabel = lambda self: None
"""

#: Code, the class of the error, and what its sentence says.
WRONG = [
    ("ko.propagate(K, net)", TypeError, "`network`.*array of shape \\(2, 2\\)"),
    ("ko.propagate(net, net)", TypeError, "`kernel`"),
    ("ko.propagate(net, None)", TypeError, "`kernel`.*None"),
    ("ko.propagate(net, 'K')", TypeError, "`kernel`.*'K'"),
    ("ko.propagate(net, K, closure='tower')", TypeError, "`closure`.*'tower'"),
    ("ko.propagate(net, K, closure=ko.WickTower)", TypeError, "`closure`.*the class WickTower"),
    ("ko.propagate(net, K, layers=5)", TypeError, "`layers`.*got 5"),
    ("ko.propagate(net, K, layers=[1.5])", TypeError, "`layers`.*1.5"),
    ("ko.propagate(net, K, layers='12')", TypeError, "`layers`"),
    ("ko.propagate_pairs(net, K, closure='tower')", TypeError, "`closure`"),
    ("ko.propagate_pairs(net, K, closure=ko.MeanOnly())", TypeError, "`closure`.*MeanOnly"),
    ("ko.propagate_pairs(K, net)", TypeError, "`network`"),
    ("ko.solve(net, K, 1.0, solver='tsit5')", TypeError, "`solver`.*'tsit5'"),
    ("ko.solve(net, K, 1.0, solver=diffrax.Tsit5)", TypeError, "`solver`.*class Tsit5"),
    ("ko.solve(net, K, 1.0, stepsize_controller=1e-3)", TypeError, "`stepsize_controller`"),
    ("ko.solve(net, K, 1.0, adjoint='forward')", TypeError, "`adjoint`"),
    ("ko.solve(net, K, 1.0, saveat=[1.0])", TypeError, "`saveat`"),
    ("ko.solve(net, K, 1.0, dt0='x')", TypeError, "`dt0`"),
    ("ko.solve(net, K, 1.0, dt0=-0.1)", ValueError, "`dt0`"),
    ("ko.solve(net, K, 1.0, max_steps=2.5)", TypeError, "`max_steps`"),
    ("ko.solve(net, K, 'late')", TypeError, "`ts`"),
    ("ko.solve(K, net, 1.0)", TypeError, "`network`"),
    ("ko.response(S, K)", TypeError, "`network`"),
    ("ko.response(K, net)", TypeError, "`network`"),
    ("ko.layer_response('net', K)", TypeError, "`network`"),
    ("ko.response_flow(net, K, 1.0, solver='x')", TypeError, "`solver`"),
    ("ko.response_correction(net, K, closure=ko.MeanOnly())", TypeError, "`closure`"),
    ("ko.response_correction(K, net)", TypeError, "`network`"),
    ("ko.residual_scale_correction(net, K, closure='x')", TypeError, "`closure`"),
    ("ko.optimal_residual_scale(K, net)", TypeError, "`network`"),
    ("ko.optimal_residual_scale(net, K, pairs='no')", TypeError, "`pairs`"),
    ("ko.optimal_flow_time(net, K, adjoint='x')", TypeError, "`adjoint`"),
    ("ko.optimal_flow_time(K, net)", TypeError, "`network`"),
    ("ko.optimise(D, net, 'residual_scale')", TypeError, "`where`.*'residual_scale'"),
    ("ko.optimise(D, net, lambda n: n.rho)", TypeError, "`where`.*rho"),
    ("ko.optimise(D, net, lambda n: n.depth)", TypeError, "`where`.*3"),
    ("ko.optimise(D, net, lambda n: n.activation)", TypeError, "`where`.*none"),
    ("ko.optimise(K, net, SCALE)", TypeError, "`objective`"),
    ("ko.optimise(D, K, SCALE)", TypeError, "`network`"),
    ("ko.optimise(lambda n: K, net, SCALE)", TypeError, "`objective`.*\\(2, 2\\)"),
    ("ko.optimise(D, net, SCALE, optimiser='adam')", TypeError, "`optimiser`.*'adam'"),
    ("ko.optimise(D, net, SCALE, optimiser=optax.adam)", TypeError, "`optimiser`"),
    ("ko.optimise(D, net, SCALE, tolerance=-1.0)", ValueError, "`tolerance`"),
    ("ko.optimise(D, net, SCALE, tolerance='x')", TypeError, "`tolerance`"),
    ("ko.optimise(D, net, SCALE, grad='forward')", TypeError, "`grad`"),
    ("ko.optimise(D, net, SCALE, positive='yes')", TypeError, "`positive`"),
    ("ko.optimise(D, net, SCALE, max_steps=1.5)", TypeError, "`max_steps`"),
    ("ko.compare(net, K)", TypeError, "`solution`"),
    ("ko.compare(S, K)", TypeError, "`measured`"),
    ("ko.Elementwise(lambda x: x[0])", TypeError, "`fn`.*shape"),
    ("ko.Elementwise(lambda x: jnp.sum(x))", TypeError, "`fn`.*shape"),
    ("ko.Elementwise(lambda x: x > 0)", TypeError, "`fn`.*bool"),
    ("ko.Elementwise(lambda x: half(x))", TypeError, "`fn`.*float16"),
    ("ko.Elementwise(lambda x, y: x)", TypeError, "`fn`.*raised"),
    ("ko.Elementwise(lambda x: x if x > 0 else 0.0)", TypeError, "`fn`.*raised"),
    ("ko.Elementwise(jax.nn.softmax)", ValueError, "`fn` must be elementwise"),
    ("ko.Elementwise(lambda x: x - jnp.mean(x))", ValueError, "`fn` must be elementwise"),
    ("ko.Elementwise(3)", TypeError, "`fn`.*3"),
    ("ko.Elementwise(jnp.tanh, kinks=3)", TypeError, "`kinks`"),
    ("ko.Elementwise(jnp.tanh, kinks=['a'])", TypeError, "`kinks`"),
    ("net.read_out(K)", TypeError, "`kernel`.*Block.*\\(2, 2\\)"),
    ("net.drift(K, net.flow_layer())", TypeError, "`kernel`.*Block"),
    ("ko.WickTower(2.5)", TypeError, "`order`.*2.5"),
    ("ko.WickTower('16')", TypeError, "`order`"),
    ("ko.WickTower(True)", TypeError, "`order`"),
    ("ko.WickTower(8, terms=1.5)", TypeError, "`terms`"),
    ("ko.propagate(net, K, closure=ko.WickTower(8, start='x'))", TypeError, "`start`"),
    ("ko.GOnly(corrected='yes')", TypeError, "`corrected`"),
    ("ko.TangentKernel(1.0)", TypeError, "`rates`.*1.0"),
    ("ko.TangentKernel(tangent='x')", TypeError, "`tangent`"),
    ("ko.LearningRates('x')", TypeError, "`weight`"),
    ("ko.LearningRates(input_weight=a)", ValueError, "`input_weight`"),
    ("ko.LearningRates.standard(net, width=-1, inputs=3)", ValueError, "`width`"),
    ("ko.MLP('tanh', 3)", TypeError, "`activation`.*'tanh'"),
    ("ko.MLP(ko.Tanh, 3)", TypeError, "`activation`.*class Tanh"),
    ("ko.MLP(ko.Tanh(), '3')", TypeError, "`depth`"),
    ("ko.pair_moments(ko.Tanh(), a, a, K, order=-1)", ValueError, "`order`.*-1"),
    ("ko.pair_moments(ko.Tanh(), a, a, K, order=1.5)", TypeError, "`order`.*1.5"),
    ("ko.pair_moments(ko.Tanh(), a, a, K, order=True)", TypeError, "`order`.*True"),
    ("ko.pair_moments(ko.Tanh(), a, a, a)", ValueError, "`c`.*\\(2, 2\\)"),
    ("ko.pair_moments(ko.Tanh(), K, a, K)", ValueError, "`a`.*\\(2, 2\\)"),
    ("ko.pair_moments(ko.Tanh(), 0.5, a, K)", ValueError, "`c`"),
    ("ko.pair_moments(jnp.tanh, a, a, K)", TypeError, "`activation`.*Elementwise"),
    ("ko.pair_moments(ko.Tanh, a, a, K)", TypeError, "`activation`.*class Tanh"),
    ("ko.pair_moments(ko.Tanh(), -a, a, K)", ValueError, "`a`.*negative"),
    ("ko.pair_moments(ko.Tanh(), a, a, 5 * K)", ValueError, "`c`"),
    ("ko.pair_moments(ko.Tanh(), a, a, K * jnp.nan)", ValueError, "`c`"),
    ("ko.variance_derivatives(ko.Tanh(), K)", ValueError, "`q`"),
    ("ko.variance_derivatives(ko.Tanh(), a, order=-1)", ValueError, "`order`"),
    ("ko.variance_derivatives(ko.Tanh(), a, order=0.5)", TypeError, "`order`"),
    ("ko.variance_derivatives('tanh', a)", TypeError, "`activation`"),
    ("ko.variance_derivatives(ko.Tanh(), -1.0)", ValueError, "`q`"),
    ("ko.hermite_spectrum(ko.Tanh(), jnp.ones((2, 2)), 4)", ValueError, "`q`"),
    ("ko.hermite_spectrum(ko.Tanh(), 1.0, 4.5)", TypeError, "`terms`"),
    ("ko.hermite_spectrum(ko.Tanh(), 1.0, 2000)", ValueError, "`terms`"),
    ("ko.hermite_spectrum(K, 1.0, 4)", TypeError, "`activation`"),
    ("ko.pair_coefficients(ko.Tanh(), a, 1.0, 0.3, 4)", ValueError, "`a`"),
    ("ko.pair_coefficients(ko.Tanh(), 1.0, 1.0, 0.3, -1)", ValueError, "`order`"),
    ("ko.pair_coefficients(ko.Tanh(), 1.0, 1.0, 0.3, 4, terms='x')", TypeError, "`terms`"),
    ("ko.pair_coefficients(ko.Tanh(), 1.0, 1.0, 1.3, 4)", ValueError, "`c`"),
    ("ko.input_kernel('x')", TypeError, "`x`"),
    ("M.at_width('wide')", TypeError, "`width`"),
    ("M.at_width(a)", ValueError, "`width`.*scalar"),
    ("ko.ensemble.sample(net, K, width=8, samples=8, key=0)", TypeError, "`key`.*0"),
    ("ko.ensemble.sample(net, K, width=8, samples=8, key=K)", TypeError, "`key`.*\\(2, 2\\)"),
    (
        "ko.ensemble.sample(net, K, width=8, key=jax.random.key(0), max_seconds='x')",
        TypeError,
        "`max_sec",
    ),
    ("ko.ensemble.sample(K, net, width=8, samples=8, key=jax.random.key(0))", TypeError, "`network`"),
    ("ko.ensemble.sample(net, K, width=8.5, samples=8, key=jax.random.key(0))", TypeError, "`width`"),
    ("ko.closure_residual(K, K, K, K)", TypeError, "`network`"),
    ("ko.closure_residual(net, 1.0, K, K)", ValueError, "`mean_kernel`"),
    ("ko.source_mismatch(net, K, 1.0, exact='x')", TypeError, "`exact`"),
    ("ko.closure_validity(net, K, [10], 0.1, exact=ko.MeanOnly())", TypeError, "`exact`"),
    ("ko.closure_validity(net, K, [[10]], 0.1)", ValueError, "`widths`"),
    ("ko.RandomCovariance(K, K)", ValueError, "`covariance`"),
    ("ko.sweep(5, net, {'residual_scale': [0.1]})", TypeError, "`function`.*5"),
    ("ko.sweep(D, net, {'rho': ko.Axis([0.1], 'rho')})", TypeError, "axes\\['rho'\\].where"),
    ("ko.ensemble.extrapolate(K, K)", TypeError, "`first`"),
    ("ko.ensemble.AbsoluteError('x')", TypeError, "`tolerance`"),
    ("ko.ensemble.sample(net, K, width=8, samples=8, key=KEY, dtype='x')", TypeError, "`dtype`"),
    ("ko.ensemble.sample(net, K, width=8, samples=8, key=KEY, control='x')", TypeError, "`control`"),
    ("ko.ensemble.sample(net, K, width=8, samples=8, key=KEY, checkpoint=3)", TypeError, "`checkpoint`"),
    ("ko.plot.plot_kernel_against_depth('x', [0], K[None], [(0, 1)])", TypeError, "`axes`"),
    ("ko.plot.plot_kernel_against_depth(AX, 'x', K[None], [(0, 1)])", TypeError, "`depths`"),
    ("ko.plot.plot_kernel_against_depth(AX, [0], S, [(0, 1)])", TypeError, "`kernel`"),
    ("ko.plot.plot_kernel_against_depth(AX, [0], K[None], 5)", TypeError, "`elements`"),
    ("ko.plot.plot_response_against_scale(AX, [1.0], K)", TypeError, "`response`"),
    ("ko.plot.plot_scale_against_depth(AX, [1, 2], K)", TypeError, "`scales`"),
    # 16 bits, complex numbers and objects: wherever an array is taken, traced or not.
    ("ko.propagate(net, half(K))", TypeError, "`kernel`.*float16.*float32 or float64"),
    ("ko.propagate(net, jnp.asarray(K, jnp.bfloat16))", TypeError, "`kernel`.*bfloat16"),
    ("ko.propagate(net, np.asarray(K, np.float16))", TypeError, "`kernel`.*float16"),
    ("ko.propagate(net, K * 1j)", TypeError, "`kernel`.*complex64"),
    ("ko.propagate(net, np.asarray(K, object))", TypeError, "`kernel`.*object"),
    ("jax.jit(lambda k: ko.propagate(net, k).mean_kernel)(half(K))", TypeError, "`kernel`.*float16"),
    ("jax.jit(lambda k: ko.response(net, k).diagonal)(half(K))", TypeError, "`kernel`.*float16"),
    ("ko.input_kernel(half(jnp.ones((2, 3))))", TypeError, "`x`.*float16"),
    ("jax.jit(ko.input_kernel)(half(jnp.ones((2, 3))))", TypeError, "`x`.*float16"),
    ("ko.input_kernel(K, half(1.0))", TypeError, "`weight_variance`.*float16"),
    ("ko.ResNet(ko.Erf(), 3, residual_scale=half(0.3))", TypeError, "`residual_scale`.*float16"),
    ("ko.MLP(ko.Erf(), 3, weight_variance=np.float16(1))", TypeError, "`weight_variance`.*float16"),
    ("ko.Sin(half(1.0))", TypeError, "`frequency`.*float16"),
    ("ko.solve(net, K, half(1.0))", TypeError, "`ts`.*float16"),
    ("ko.pair_moments(ko.Tanh(), half(a), a, K)", TypeError, "`a`.*float16"),
    ("jax.jit(lambda c: ko.pair_moments(ko.Tanh(), a, a, c)[0, 0].value)(half(K))", TypeError, "`c`.*16"),
    ("ko.variance_derivatives(ko.Tanh(), half(a))", TypeError, "`q`.*float16"),
    ("ko.hermite_spectrum(ko.Tanh(), half(1.0), 4)", TypeError, "`q`.*float16"),
    ("ko.pair_coefficients(ko.Tanh(), 1.0, half(1.0), 0.3, 4)", TypeError, "`b`.*float16"),
    ("ko.ensemble.Data(half(K))", TypeError, "`x`.*float16"),
    ("ko.DiagonalResponse(half(K))", TypeError, "`kernel`.*float16"),
    ("ko.optimal_residual_scale(net, half(K))", TypeError, "`kernel`.*float16"),
]

#: What is taken: numbers, NumPy's numbers and lists where arrays of their shape are.
RIGHT = [
    "ko.pair_moments(ko.Tanh(), 0.5, 0.8, 0.2)[0, 0].value.shape == ()",
    "ko.pair_moments(ko.ReLU(), [0.5, 0.8], 0.8, [0.2, 0.3], 1)[1, 1].error.shape == (2,)",
    "ko.pair_moments(ko.Erf(), np.float32(0.5), 1, 0.2)[0, 0].value.dtype == jnp.float32",
    "bool(ko.pair_moments(ko.Erf(), 0.5, 0.8, 0.2, 1)[1, 1].value"
    " == ko.pair_moments(ko.Erf(), a, a, K, 1)[1, 1].value[0, 1])",
    "ko.variance_derivatives(ko.Tanh(), 0.5, 2).value.shape == (3,)",
    "ko.variance_derivatives(ko.ReLU(), [0.5, 1.0]).value.shape == (1, 2)",
    "ko.hermite_spectrum(ko.Tanh(), 1.0, 8).value.shape == (8,)",
    "ko.pair_coefficients(ko.Tanh(), 1.0, 2.0, 0.3, 4).value.shape == (5, 5)",
    "ko.pair_coefficients(ko.Tanh(), 1, np.float64(2), 0.3, np.int64(4)).value.shape == (5, 5)",
    "ko.solve(net, [[1.0]], 1.0).mean_kernel.shape == (1, 1, 1)",
    "ko.propagate(net, [[1, 0], [0, 1]], layers=np.array([1, 3])).mean_kernel.shape == (2, 2, 2)",
    "ko.propagate(net, K, layers=range(2)).mean_kernel.shape == (2, 2, 2)",
]


@pytest.fixture(scope="module")
def sentences():
    """What each piece of code came to: the error and its text, or the value."""
    code = f"""{SETUP}
found = {{}}
for code in {[case[0] for case in WRONG] + RIGHT!r}:
    try:
        found[code] = [None, repr(eval(code))[:80]]
    except Exception as error:
        found[code] = [[kind.__name__ for kind in type(error).__mro__], str(error)]
print(json.dumps(found))
"""
    return json.loads(run_python(code).splitlines()[-1])


@pytest.mark.parametrize("code, error, message", WRONG, ids=[case[0] for case in WRONG])
def test_wrong_arguments_are_named(sentences, code, error, message):
    kinds, text = sentences[code]
    assert kinds is not None, f"nothing raised: {text}"
    assert error.__name__ in kinds, text
    assert re.search(message, text), text
    assert "\n" not in text and text.endswith((".", "needed.")) and len(text) < 250, text


@pytest.mark.parametrize("code", RIGHT)
def test_numbers_are_taken_where_arrays_are(sentences, code):
    assert sentences[code] == [None, "True"]
