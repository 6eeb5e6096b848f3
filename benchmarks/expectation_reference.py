"""Reference values of E[sigma^(i)(x) sigma^(j)(y)] in high precision, by none of kernelode's formulas.

Smooth activations: the trapezoidal rule in two dimensions, on a lattice in x / sqrt(a) and
y / sqrt(b), with the bivariate normal density written in sums and differences of the lattice indices,

    u^2 - 2 rho u v + v^2 = (1 + rho)/2 (u - v)^2 + (1 - rho)/2 (u + v)^2,

so that it is a product of two one-dimensional tables. Derivatives of sigma by mpmath's Taylor
coefficients. Sums in integers of 2^-112, which are exact and much faster than mpmath's floats. Both
discretisation and truncation errors are below 1e-20 of the natural scale.

Piecewise linear activations: sigma'' is a sum of delta functions, so that one of the two integrals is
done by hand; what is left are one-dimensional integrals and derivatives of them, by mpmath.

`python benchmarks/expectation_accuracy.py --reference` writes the file that the tests read.
"""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import mpmath as mp
import numpy as np

CORRELATIONS = (-1.0, -0.99, 0.0, 0.3, 0.9, 0.99, 1.0)
EQUAL = tuple((q, q) for q in (1e-3, 0.1, 1.0, 5.0, 20.0))
UNEQUAL = ((0.1, 0.03), (1.0, 0.3), (20.0, 6.0))
LARGE = ((100.0, 100.0), (400.0, 400.0))
LARGE_CORRELATIONS = (-1.0, 0.3, 0.99, 1.0)
LEAKY_SLOPE = 0.1
POLYNOMIAL = (0.5, -1.0, 0.25, 0.75, -0.125)
MAX_ORDER = 6
BITS = 112

SMOOTH: dict[str, Callable] = {
    "tanh": mp.tanh,
    "erf": mp.erf,
    "gelu": lambda x: x * mp.ncdf(x),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "swish": lambda x: x / (1 + mp.exp(-x)),
    "sin": mp.sin,
    "linear": lambda x: x,
    "polynomial": lambda x: mp.polyval(POLYNOMIAL[::-1], x),
}

# Kinks as {position: jump of the slope}; sigma = constant + slope x + sum_k jump_k relu(x - k).
PIECEWISE: dict[str, tuple] = {
    "relu": (0, 0, {0.0: 1.0}),
    "leaky_relu": (0, LEAKY_SLOPE, {0.0: 1 - LEAKY_SLOPE}),
    "hard_tanh": (-1, 0, {-1.0: 1.0, 1.0: -1.0}),
}


def orders() -> list[tuple[int, int]]:
    """(i, j) with i + j even and at most 6: every derivative of E[sigma sigma] up to the third."""
    pairs = itertools.product(range(MAX_ORDER + 1), repeat=2)
    return [(i, j) for i, j in pairs if (i + j) % 2 == 0 and i + j <= MAX_ORDER]


# Smooth activations.


def _integer(x) -> int:
    return int(mp.nint(mp.ldexp(x, BITS)))


def _real(x: int):
    return mp.ldexp(mp.mpf(x), -BITS)


@functools.cache
def _derivatives(name: str, variance: float, half: int) -> np.ndarray:
    """sigma^(i)(sqrt(a) u) on the lattice |u| <= 10, as integers: (lattice, derivative)."""
    spacing = mp.mpf(10) / half
    scale = mp.sqrt(mp.mpf(variance))
    rows = []
    for k in range(-half, half + 1):
        coefficients = mp.taylor(SMOOTH[name], scale * spacing * k, MAX_ORDER)
        rows.append([_integer(t * mp.factorial(m)) for m, t in enumerate(coefficients)])
    return np.array(rows, dtype=object)


def _density(rho: float, half: int) -> np.ndarray:
    """Bivariate normal density times the area of a cell, on the lattice, as integers."""
    spacing = mp.mpf(10) / half
    rho = mp.mpf(rho)  # pyright: ignore[reportAssignmentType]
    k = np.arange(-half, half + 1)
    norm = spacing**2 / (2 * mp.pi * mp.sqrt(1 - rho**2))
    steps = [spacing * n for n in range(2 * half + 1)]
    gaussian = lambda width: np.array([_integer(mp.exp(-(d**2) / (4 * width))) for d in steps], object)
    by_difference, by_sum = gaussian(1 - rho), gaussian(1 + rho)
    table = by_difference[np.abs(k[:, None] - k)] * by_sum[np.abs(k[:, None] + k)] >> BITS
    return table * _integer(norm) >> BITS


def _smooth(names, pairs, half: int, correlations) -> Iterator[tuple]:
    """(name, a, b, rho, matrix of all E[sigma^(i) sigma^(j)])."""
    spacing = mp.mpf(10) / half
    u = [spacing * k for k in range(-half, half + 1)]
    line = np.array([_integer(spacing * mp.npdf(x)) for x in u], dtype=object)[:, None]
    for size in sorted({abs(rho) for rho in correlations}):
        density = _density(size, half) if 0 < size < 1 else None
        for name, (a, b) in itertools.product(names, pairs):
            f, g = _derivatives(name, a, half), _derivatives(name, b, half)
            left = f.T if density is None else f.T @ density >> BITS
            for rho in correlations:
                if abs(rho) != size:
                    continue
                if rho == 0:
                    moments = (left @ line >> BITS) * (g.T @ line >> BITS).T >> BITS
                else:
                    right = g[::-1] if rho < 0 else g
                    moments = left @ (right * line >> BITS if size == 1 else right) >> BITS
                yield name, a, b, rho, np.vectorize(_real, otypes=[object])(moments)


# Piecewise linear activations.


def _piecewise(name: str, a: float, b: float, rho: float, i: int, j: int):
    """E[sigma^(i) sigma^(j)], or None where it is infinite (correlation +-1, beyond first order)."""
    constant, slope, jumps = PIECEWISE[name]
    if i < j:
        return _piecewise(name, b, a, rho, j, i)
    a, b, rho = mp.mpf(a), mp.mpf(b), mp.mpf(rho)  # pyright: ignore[reportAssignmentType]
    deviation = mp.sqrt(b * (1 - rho**2))
    density = lambda x: mp.npdf(x, 0, mp.sqrt(a))
    mean = lambda x: rho * mp.sqrt(b / a) * x

    def sigma(x, order):
        relu = (lambda t: max(t, 0)) if order == 0 else (lambda t: (mp.sign(t) + 1) / 2)
        ramp = constant + slope * x if order == 0 else slope
        return ramp + sum(jump * relu(x - kink) for kink, jump in jumps.items())

    def conditional(x, order):
        """E[sigma^(order)(y) | x]; beyond the first order sigma'' = sum_k jump_k delta(y - k)."""
        if abs(rho) == 1:
            return sigma(mean(x), order)
        if order >= 2:
            normal = lambda y: mp.npdf(y, mean(x), deviation)
            sign = (-1) ** order
            return sum(s * sign * mp.diff(normal, k, order - 2) for k, s in jumps.items())
        ramp = constant + slope * mean(x) if order == 0 else slope
        total = ramp
        for kink, jump in jumps.items():
            t = (mean(x) - kink) / deviation
            part = deviation * (t * mp.ncdf(t) + mp.npdf(t)) if order == 0 else mp.ncdf(t)
            total += jump * part
        return total

    if i <= 1:
        reach = 12 * mp.sqrt(a)
        corners = [k for k in jumps] + [k / mean(1) for k in jumps if rho != 0]
        edges = sorted({-reach, reach, *(mp.mpf(k) for k in corners if abs(k) < reach)})
        fine = [mp.linspace(p, q, 9)[:-1] for p, q in itertools.pairwise(edges)]
        edges = [x for part in fine for x in part] + [reach]
        return mp.quad(lambda x: density(x) * sigma(x, i) * conditional(x, j), edges)
    if abs(rho) == 1 and i + j > 2:
        return None
    product = lambda x: density(x) * conditional(x, j)
    sign = (-1) ** i
    return sum(s * sign * mp.diff(product, mp.mpf(k), i - 2) for k, s in jumps.items())


# The file.


def _entry(matrix, i: int, j: int):
    return matrix[i, j]


def _digits(x) -> float | None:
    """17 digits; below 1e-25 only the noise of numerical differentiation is left of a zero."""
    return None if x is None else float(mp.nstr(mp.chop(x, 1e-25), 17))


def compute() -> dict:
    """{activation: [{"a", "b", "rho", "moments": {"ij": value}}]} and norms E[(sigma^(i))^2]."""
    mp.mp.dps = 34
    moments: dict[str, list] = {name: [] for name in (*SMOOTH, *PIECEWISE)}
    norms: dict[str, dict] = {name: {} for name in moments}

    def add(name, a, b, rho, value):
        kept = [(i, j) for i, j in orders() if a != b or i >= j]
        table = {f"{i}{j}": _digits(value(i, j)) for i, j in kept}
        moments[name].append({"a": a, "b": b, "rho": rho, "moments": table})

    small = tuple(pair for pair in EQUAL + UNEQUAL if pair[0] < 20)
    usual = tuple(pair for pair in EQUAL + UNEQUAL if pair[0] == 20)
    # Half the lattice's intervals: the poles of tanh come closer to the line like 1 / sqrt(variance).
    for names, pairs, half, correlations in (
        (SMOOTH, small, 250, CORRELATIONS),
        (SMOOTH, usual, 400, CORRELATIONS),
        (("tanh",), LARGE, 1600, LARGE_CORRELATIONS),
    ):
        for name, a, b, rho, matrix in _smooth(names, pairs, half, correlations):
            add(name, a, b, rho, functools.partial(_entry, matrix))
        diagonal = [(q, q) for q in sorted({q for pair in pairs for q in pair})]
        for name, q, _, _, matrix in _smooth(names, diagonal, half, (1.0,)):
            norms[name][repr(q)] = [_digits(matrix[i, i]) for i in range(MAX_ORDER + 1)]
    for name, (a, b), rho in itertools.product(PIECEWISE, EQUAL + UNEQUAL, CORRELATIONS):
        add(name, a, b, rho, functools.partial(_piecewise, name, a, b, rho))
        norms[name][repr(b)] = [_digits(_piecewise(name, b, b, 1.0, i, i)) for i in (0, 1)]
    return {
        "source": "benchmarks/expectation_reference.py",
        "leaky_slope": LEAKY_SLOPE,
        "polynomial": list(POLYNOMIAL),
        "norms": norms,
        "moments": moments,
    }


def write(path: Path) -> None:
    """Compute the reference and write it, one case a line."""
    reference = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in rows) + "\n]"
        for name, rows in reference.pop("moments").items()
    )
    head = json.dumps(reference, separators=(",", ":"))[:-1]
    path.write_text(f'{head},\n"moments": {{\n{cases}\n}}}}\n')
