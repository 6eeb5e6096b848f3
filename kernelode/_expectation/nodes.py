"""Fixed nodes on the line for averages over a standard normal, and Hermite polynomials on them.

The rule is the trapezoidal rule in x with z = c sinh(x). The trapezoidal rule converges
exponentially for analytic integrands, at a rate set by the nearest complex singularity. An activation
with a pole at i d has it at z = i d / sqrt(q), ever closer as the variance q grows; the map moves it
to x = i asin(d / (c sqrt(q))), which stays away from the line up to q ~ (d/c)^2, where uniform nodes
need a spacing like 1/sqrt(q). One set of nodes then serves every variance, so that a variance can be
a traced value. (docs/accuracy.md has the measured errors.)
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from .hermite import hermite_functions

#: Orders of the Hermite spectrum that a pair expectation may use, and how many are taken at once.
TERMS = 1024
BLOCK = 32

#: How much further out the rules go that others are compared with for an estimate of the error.
FINER_REACH = 1.25


class Rule(NamedTuple):
    """Nodes z and weights w with E[f(z)] = sum_i w_i f(z_i), z ~ N(0, 1); z = concentration
    sinh(spacing k) for integers k."""

    nodes: np.ndarray
    weights: np.ndarray
    concentration: float

    def half(self) -> "Rule":
        """For even functions: the nodes from zero on."""
        middle = len(self.nodes) // 2
        nodes, weights = self.nodes[middle:], self.weights[middle:]
        return Rule(nodes, np.where(nodes > 0, 2, 1) * weights, self.concentration)

    @property
    def reach(self) -> float:
        """The largest node."""
        return float(self.nodes[-1])

    @property
    def spacing(self) -> float:
        """Of the integers k."""
        last = np.arcsinh(self.nodes[-2:] / self.concentration)
        return float(last[1] - last[0])


def _sinh_rule(count: int, concentration: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes |z| <= reach, and weights without the normal density. `count` is 4k + 1."""
    spacing = 2 * np.arcsinh(reach / concentration) / (count - 1)
    x = spacing * (np.arange(count) - (count - 1) // 2)
    return concentration * np.sinh(x), spacing * concentration * np.cosh(x)


def _normal_rule(count: int, concentration: float, reach: float = 9.5) -> Rule:
    """Averages over |z| <= `reach`; beyond 9.5 the density is below exp(-45)."""
    nodes, steps = _sinh_rule(count, concentration, reach)
    return Rule(nodes, steps * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi), concentration)


@functools.lru_cache
def line_rule() -> Rule:
    """For averages of one function (no Hermite polynomials beyond the lowest)."""
    return _normal_rule(257, concentration=0.1)


@functools.lru_cache
def monotone_rule() -> Rule:
    """For functions of a monotone activation, which do not oscillate far out, where these nodes are too
    wide for it: half as many as in `line_rule`, and no less accurate up to variances of several hundred.
    The half that an odd activation needs is less than 512 bytes; XLA on CPUs runs programs without
    larger arrays in one thread, which for one input is twice as fast."""
    return _normal_rule(121, concentration=0.05)


@functools.lru_cache
def spectral_rule() -> Rule:
    """For Hermite coefficients up to order `TERMS`: dense enough for their oscillation.

    The oscillating part of h_m(z) exp(-z^2/2) has wave number sqrt(m); its tail beyond |z| = 12 is
    below exp(-36) for every m.
    """
    return _normal_rule(641, concentration=0.2, reach=12.0)


#: Of the nodes of `chaos_rule`: Hermite functions of high order oscillate far out as next to zero, so
#: that nodes are nearly uniform; features of the activation next to zero are why they are not quite so.
CHAOS_CONCENTRATION = 4.0


class Steps(NamedTuple):
    """Nodes z and steps with integral f dz / sqrt(2 pi) = sum_i step_i f(z_i)."""

    nodes: np.ndarray
    steps: np.ndarray


def chaos_reach(order: int) -> float:
    """How far out h_j h_i exp(-z^2/2), j <= order, is not negligible."""
    return max(2 * math.sqrt(order + 4) + 5.5, 12.0)


@functools.lru_cache
def chaos_rule(order: int, terms: int, finer: bool = False) -> Steps:
    """For E[sigma h_j h_i], j <= order, i < terms, whose integrand reaches as far as h_j oscillates, to
    2 sqrt(j), and has the wave number sqrt(i) of h_i. (docs/accuracy.md has the measured errors.)

    The `finer` rule has half of the spacing and goes further out. What the trapezoidal rule changes
    by when its spacing is halved is its own error, up to the much smaller one that is left; of a kink or
    of a step that it does not see it is at least a third.
    """
    reach, concentration = chaos_reach(order), CHAOS_CONCENTRATION
    end = math.asinh(reach / concentration)
    wave = math.sqrt(max(terms, 4 * order))
    widest = min(5.0 / wave / math.hypot(concentration, reach), 0.0172)
    quarter = math.ceil(end / (2 * widest))
    if finer:
        reach *= FINER_REACH
        quarter = math.ceil(2 * quarter * math.asinh(reach / concentration) / end)
    nodes, steps = _sinh_rule(4 * quarter + 1, concentration, reach)
    return Steps(nodes, steps / np.sqrt(2 * np.pi))


@functools.lru_cache
def spectral_matrix() -> np.ndarray:
    """H with E[f h_m] = sum_i H[m, i] f(z_i) on the nodes of `spectral_rule`. (TERMS, nodes)."""
    nodes, weights, _ = spectral_rule()
    return hermite_functions(nodes, TERMS) * weights * np.exp(nodes**2 / 4)
