"""Batches on all local devices, in order, and the bins that their sums go into."""

import itertools
from collections.abc import Iterator

import jax
import jax.random as jr
import numpy as np

from .._numerics.devices import rounds
from ._batch import run_batch
from ._draw import Draw

#: Sums are kept in this many bins, whose scatter gives the errors.
BINS = 64

#: Errors are not estimated from fewer batches.
FEWEST = 8

#: Of each bin: the number of networks, and sums by name.
Bins = list[tuple[int, dict[str, np.ndarray]]]


def batches(draw: Draw, key, first: int, last: int | float) -> Iterator[dict[str, np.ndarray]]:
    """Sums of the batches `first`, ..., `last` - 1, in order. Batch i has the key fold_in(key, i) on
    whatever device it runs."""
    devices = jax.local_device_count()

    def keys(start: int):
        return jax.numpy.stack([jr.fold_in(key, start + place) for place in range(devices)])

    starts = itertools.takewhile(lambda start: start < last, itertools.count(first, devices))
    counts = itertools.count(first, devices)
    for start, current in zip(counts, rounds(_one_batch, draw, keys, starts)):
        sums = jax.tree.map(np.asarray, current)
        for place in range(int(min(last - start, devices))):
            yield {name: values[place] for name, values in sums.items()}


def _one_batch(draw: Draw, keys):
    return jax.tree.map(lambda x: x[None], run_batch(draw, keys[0]))


def add(bins: Bins, batch: int, sums: dict[str, np.ndarray]) -> None:
    """Add the sums of the next batch of so many networks to its bin, in float64.

    By one assignment, so that an interruption finds whole batches; in the order of batches, so that a
    resumed run repeats every rounding.
    """
    index = done(bins, batch) % BINS
    count, before = bins[index]
    plus = lambda name, x: before[name] + x if count else x.astype(np.float64)
    bins[index] = (count + batch, {name: plus(name, values) for name, values in sums.items()})


def done(bins: Bins, batch: int) -> int:
    """How many batches are in the bins."""
    return sum(count for count, _ in bins) // batch


def counts_after(batches: int) -> np.ndarray:
    """How many batches are in each bin after so many: they take turns."""
    return batches // BINS + (np.arange(BINS) < batches % BINS).astype(np.int64)


def stacked(bins: Bins) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Counts (bins,) and sums (bins, ...)."""
    counts = np.array([count for count, _ in bins], np.int64)
    shapes = {name: values.shape for name, values in bins[0][1].items()}
    pick = lambda sums, name: sums.get(name, np.zeros(shapes[name]))
    return counts, {name: np.stack([pick(sums, name) for _, sums in bins]) for name in shapes}


def unstacked(counts: np.ndarray, sums: dict[str, np.ndarray]) -> Bins:
    """The inverse of `stacked`."""
    return [
        (int(count), {name: values[i] for name, values in sums.items()} if count else {})
        for i, count in enumerate(counts)
    ]
