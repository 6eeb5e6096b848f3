"""The Wick tower in numpy, by quadrature of its own: what the library's tower and its bounds are held to.

One input: orders of several hundred, E[sigma^2 h_p] on a line. A pair: section 4 of docs/finite_width.md
word for word, coefficients by two-dimensional sums. Either with the exact noise of a layer, or with that
of the kept degrees alone, as the stored reference values have it.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy import special


def erf(x):
    return special.erf(x)


def softplus(x):
    return np.logaddexp(0, x)


def swish(x):
    return x * special.expit(x)


def gelu(x):
    return x * special.ndtr(x)


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def hard_tanh(x):
    return np.clip(x, -1, 1)


FUNCTIONS = {
    "tanh": (np.tanh, ()),
    "erf": (erf, ()),
    "gelu": (gelu, ()),
    "softplus": (softplus, ()),
    "swish": (swish, ()),
    "sin": (np.sin, ()),
    "sin3": (lambda x: np.sin(3 * x), ()),
    "sinus": (lambda x: x + np.sin(3 * x), ()),
    "bump": (lambda x: x * np.exp(-(x**2) / 2), ()),
    "square": (lambda x: x**2 / 4 + x, ()),
    "relu": (lambda x: np.maximum(x, 0), (0.0,)),
    "leaky": (leaky, (0.0,)),
    "hard_tanh": (hard_tanh, (-1.0, 1.0)),
}


@dataclasses.dataclass
class Network:
    """A residual network, layer after layer; `skips` zero is a feed-forward one. `output` are C_W and C_b
    of the read-out, `widths` relative to the reference width, one more than layers."""

    name: str
    scales: np.ndarray
    weight_variance: float
    bias_variance: float
    skips: np.ndarray
    widths: np.ndarray
    output: tuple[float, float]
    start: str = "gaussian"

    def layers(self):
        own = (self.weight_variance, self.bias_variance)
        for scale, skip, width in zip(self.scales, self.skips, self.widths):
            yield scale, skip, width, *own


def hermite(z: np.ndarray, count: int) -> np.ndarray:
    """h_m(z) exp(-z^2/4), m < count."""
    functions = [np.exp(-(z**2) / 4), z * np.exp(-(z**2) / 4)]
    for m in range(1, count - 1):
        functions.append((z * functions[m] - math.sqrt(m) * functions[m - 1]) / math.sqrt(m + 1))
    return np.stack(functions[:count])


@functools.cache
def _line(edges: tuple[float, ...], count: int):
    points, steps = leggauss(count)
    edge = np.array([-12.0, *edges, 12.0])
    middle, half = (edge[1:] + edge[:-1]) / 2, np.diff(edge) / 2
    z = (middle[:, None] + half[:, None] * points).ravel()
    return z, (half[:, None] * steps).ravel() / math.sqrt(2 * math.pi)


def single_spectrum(name: str, q: float, top: int):
    """E[sigma^2 h_p], p <= top, and E[sigma^4], at variance q."""
    function, kinks = FUNCTIONS[name]
    if kinks:
        z, steps = _line(tuple(k / math.sqrt(q) for k in kinks if abs(k) < 12 * math.sqrt(q)), 500)
    else:
        z = np.arange(-12, 12.001, 0.02)
        steps = np.full_like(z, 0.02 / math.sqrt(2 * math.pi))
    square = function(math.sqrt(q) * z) ** 2
    damping = np.exp(-(z**2) / 4)
    return hermite(z, top + 1) @ (steps * damping * square), np.sum(steps * damping**2 * square**2)


def single_tower(network: Network, q: float, order: int = 240) -> dict[str, Any]:
    """K, V4, K1 of one input after the last layer, and of the read-out."""
    p = np.arange(1, order + 1)
    memory, c, k1 = np.zeros(order), 0.0, 0.0
    if network.start == "fixed_gram":
        memory[1], c = -math.sqrt(2) * q, 2 * q**2

    def advance(state, scale, skip, width, weights, bias):
        q, memory, c, k1 = state
        h, fourth = single_spectrum(network.name, q, order + 2)
        h, fourth = weights * h, weights**2 * fourth
        chi, curvature = math.sqrt(2) * h[2] / (2 * q), math.sqrt(24) * h[4] / (8 * q**2)
        after = skip**2 * q + scale**2 * (bias + h[0])
        driven = h[1:-2] @ memory
        jacobian = skip**2 + scale**2 * chi
        shift = curvature * c + np.sqrt((p + 1.0) * (p + 2)) * h[3:] @ memory / (2 * q)
        return (
            after,
            (skip * math.sqrt(q / after)) ** p * (jacobian * memory + scale**2 * h[1:-2]),
            jacobian**2 * c + 2 * scale**2 * jacobian * driven + scale**4 * (fourth - h[0] ** 2) / width,
            jacobian * k1 + scale**2 * shift,
        )

    state = (q, memory, c, k1)
    for layer in network.layers():
        state = advance(state, *layer)
    out = advance(state, 1.0, 0.0, network.widths[-1], *network.output)
    q, memory, c, k1 = state
    return {
        "kernel": q,
        "V4": 2 * q**2 + 2 * math.sqrt(2) * q * memory[1] + c,
        "K1": k1,
        "out_V4": out[2],
        "out_K1": out[3],
    }


# A pair. Elements X in (aa, ab, bb), arrays c[X, j, k] of E[f_X h_j(u) h_k(v)].


@functools.cache
def _grid(order: int):
    z = np.arange(-12, 12.001, 0.09)
    return z, hermite(z, order + 1) * 0.09 / math.sqrt(2 * math.pi), np.exp(-(z**2) / 4)


@functools.cache
def _wedges(theta: float, order: int):
    """u, v and weights in polar coordinates, a rule for each wedge between the lines x = 0 and y = 0."""
    angles, steps = leggauss(order // 2 + 40)
    radii, radial = leggauss(160)
    radii, radial = 7 * (radii + 1), 7 * radial
    edges = np.array([-np.pi / 2, theta - np.pi / 2, np.pi / 2, theta + np.pi / 2, 3 * np.pi / 2])
    half = np.diff(edges) / 2
    t = (edges[:-1, None] + half[:, None] * (angles + 1)).ravel()
    weights = (half[:, None] * steps).ravel()
    u, v = radii[:, None] * np.cos(t), radii[:, None] * np.sin(t)
    return u, v, radial[:, None] * radii[:, None] * weights / (2 * np.pi)


def pair_moments(name: str, kernel: np.ndarray, order: int):
    """c[X, j, k] for j, k <= order, and E[f_X f_Y]."""
    function, kinks = FUNCTIONS[name]
    (qa, c), (_, qb) = kernel
    a11 = math.sqrt(qa)
    a21, a22 = c / a11, math.sqrt(max(qb - c**2 / qa, 0))
    if kinks == (0.0,):
        u, v, weights = _wedges(float(np.arctan2(a22, a21)), order)
        x, y = function(a11 * u), function(a21 * u + a22 * v)
        f = np.stack([x * x, x * y, y * y])
        damped = weights * np.exp(-(u**2 + v**2) / 4)
        hu, hv = (hermite(w.ravel(), order + 1) for w in (u, v))
        c = np.stack([(hu * (one * damped).ravel()) @ hv.T for one in f])
        density = weights * np.exp(-(u**2 + v**2) / 2)
        return c, np.einsum("xuv,yuv,uv->xy", f, f, density)
    z, h, damping = _grid(order)
    x = function(a11 * z)[:, None]
    y = function(a21 * z[:, None] + a22 * z[None, :])
    f = np.stack([np.broadcast_to(x * x, y.shape), x * y, y * y])
    step = 0.09 / math.sqrt(2 * math.pi)
    density = np.outer(damping**2, damping**2) * step**2
    c = np.einsum("ju,xuv,kv->xjk", h * damping, f, h * damping, optimize=True)
    return c, np.einsum("xuv,yuv,uv->xy", f, f, density, optimize=True)


def symmetric_power(m: np.ndarray, p: int) -> np.ndarray:
    """Cov(h_{p-k'}(u') h_k'(v'), h_{p-k}(u) h_k(v)) where Cov((u', v'), (u, v)) = m; rows k'."""
    rows = []
    first, second = [np.array([1.0])], [np.array([1.0])]
    for _ in range(p):
        first.append(np.convolve(first[-1], m[0]))
        second.append(np.convolve(second[-1], m[1]))
    log = special.gammaln
    k = np.arange(p + 1)
    size = (log(p - k + 1) + log(k + 1)) / 2
    for row in range(p + 1):
        rows.append(np.convolve(first[p - row], second[row]) * np.exp(size - size[row]))
    return np.stack(rows)


def second_power(m: np.ndarray) -> np.ndarray:
    (p, q), (r, s) = m
    return np.array([[p * p, 2 * p * q, q * q], [p * r, p * s + q * r, q * s], [r * r, 2 * r * s, s * s]])


def frame(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A lower triangular, and its inverse without a direction that parallel inputs lack."""
    (qa, c), (_, qb) = kernel
    a11, gap = math.sqrt(qa), qb - c**2 / qa
    if gap < 1e-12 * qb:
        return np.array([[a11, 0], [c / a11, 0]]), np.array([[1 / a11, 0], [0, 0]])
    a22 = math.sqrt(gap)
    a = np.array([[a11, 0], [c / a11, a22]])
    return a, np.array([[1 / a11, 0], [-c / (qa * a22), 1 / a22]])


def gamma(kernel: np.ndarray) -> np.ndarray:
    a, b = np.array([0, 0, 1]), np.array([0, 1, 1])
    k = kernel
    return k[np.ix_(a, a)] * k[np.ix_(b, b)] + k[np.ix_(a, b)] * k[np.ix_(b, a)]


def pair_layer(name: str, kernel: np.ndarray, order: int, weights: float, bias: float) -> dict[str, Any]:
    """Q, chi, 1/2 D^2Q, the drive and the sources of one layer, and its noise of all degrees."""
    c, fourth = pair_moments(name, kernel, order + 4)
    turn = second_power(frame(kernel)[1])
    c, j = weights * c, np.arange(order + 1)
    r2, s24, s6 = math.sqrt(2), math.sqrt(24), 4 * math.sqrt(6)
    gradient = np.stack([r2 * c[:, 2, 0], 2 * c[:, 1, 1], r2 * c[:, 0, 2]], axis=1) / 2
    hessian = np.zeros((3, 3, 3))
    hessian[:, 0, 0], hessian[:, 2, 2] = s24 * c[:, 4, 0], s24 * c[:, 0, 4]
    hessian[:, 0, 1] = hessian[:, 1, 0] = s6 * c[:, 3, 1] / 2
    hessian[:, 1, 2] = hessian[:, 2, 1] = s6 * c[:, 1, 3] / 2
    hessian[:, 0, 2] = hessian[:, 2, 0] = 2 * c[:, 2, 2]
    hessian[:, 1, 1] = 8 * c[:, 2, 2]
    n = order + 1
    two = np.sqrt((j + 1.0) * (j + 2))
    one = np.sqrt(j + 1.0)
    kept = (np.add.outer(j, j) <= order) & (np.add.outer(j, j) >= 1)
    sources = np.stack(
        [
            c[:, 2 : n + 2, :n] * two[:, None] / 2,
            c[:, 1 : n + 1, 1 : n + 1] * np.outer(one, one),
            c[:, :n, 2 : n + 2] * two / 2,
        ],
        axis=1,
    )
    return {
        "q": bias + c[:, 0, 0],
        "chi": gradient @ turn,
        "curvature": np.einsum("xmn,my,nz->xyz", hessian / 8, turn, turn),
        "drive": c[:, :n, :n] * kept,
        "sources": np.einsum("xmjk,my->xyjk", sources, turn) * kept,
        "noise": weights**2 * fourth - np.outer(c[:, 0, 0], c[:, 0, 0]),
    }


def pair_tower(network: Network, kernel: np.ndarray, order: int, *, at=()):
    """K, V4, K1 on (aa, ab, bb) after the layers `at`, the last one by default, and of the read-out
    there; twice: with the exact noise of layers, and with that of the kept degrees."""
    a, b = np.array([0, 0, 1]), np.array([0, 1, 1])
    memory, c, k1 = np.zeros((3, order + 1, order + 1)), np.zeros((2, 3, 3)), np.zeros((2, 3))
    norms = np.array([math.sqrt(2), 1, math.sqrt(2)])
    if network.start == "fixed_gram":
        rotated = -gamma(kernel) @ second_power(frame(kernel)[1]).T / norms
        memory[:, 2, 0], memory[:, 1, 1], memory[:, 0, 2] = rotated.T
        c = c + gamma(kernel)

    def advance(state, scale, skip, width, weights, bias):
        kernel, memory, c, k1 = state
        here = pair_layer(network.name, kernel, order, weights, bias)
        q = here["q"]
        after = skip**2 * kernel + scale**2 * np.array([[q[0], q[1]], [q[1], q[2]]])
        driven = np.einsum("xjk,yjk->xy", here["drive"], memory)
        own = np.einsum("xjk,yjk->xy", here["drive"], here["drive"])
        jacobian = skip**2 * np.eye(3) + scale**2 * here["chi"]
        moved = scale**2 * driven @ jacobian.T
        shift = np.einsum("xyjk,yjk->x", here["sources"], memory)
        shift = shift + np.einsum("xyz,nyz->nx", here["curvature"], c)
        moving = np.einsum("xy,yjk->xjk", jacobian, memory) + scale**2 * here["drive"]
        if skip:
            turn, turned = skip * frame(after)[1] @ frame(kernel)[0], np.zeros_like(memory)
            for p in range(1, order + 1):
                k = np.arange(p + 1)
                turned[:, p - k, k] = moving[:, p - k, k] @ symmetric_power(turn, p).T
        else:
            turned = 0 * memory
        noise = np.stack([here["noise"], own])
        covariance = jacobian @ c @ jacobian.T + moved + moved.T + scale**4 * noise / width
        return after, turned, covariance, k1 @ jacobian.T + scale**2 * shift

    def found(state):
        kernel, memory, c, k1 = state
        a_ = frame(kernel)[0]
        monomials = np.stack([np.outer(a_[i], a_[j]) for i, j in zip(a, b)])
        monomials = np.stack(
            [monomials[:, 0, 0], monomials[:, 0, 1] + monomials[:, 1, 0], monomials[:, 1, 1]], axis=1
        )
        r2 = (np.stack([memory[:, 2, 0], memory[:, 1, 1], memory[:, 0, 2]], axis=1) * norms) @ monomials.T
        out = advance(state, 1.0, 0.0, network.widths[-1], *network.output)
        return {
            "kernel": kernel[a, b],
            "V4": gamma(kernel) + r2 + r2.T + c,
            "K1": k1,
            "out_V4": out[2],
            "out_K1": out[3],
        }

    state, results = (kernel, memory, c, k1), {}
    for number, layer in enumerate(network.layers(), start=1):
        state = advance(state, *layer)
        if number in at:
            results[number] = found(state)
    return results if at else found(state)
