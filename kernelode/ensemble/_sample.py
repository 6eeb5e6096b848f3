"""`sample`: an ensemble of random networks, drawn until it is enough, with what is done kept safe."""

import math
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np

from .._architecture import AbstractArchitecture
from .._architecture.rates import LearningRates
from .._architecture.start import FixedGram, GaussianRows
from .._support.checks import checked_key, described, flag, positive_integer, scalar
from .._support.custom_types import KeyLike, RealLike
from .._support.interrupt import sigterm_as_interrupt
from .._support.progress import reporting
from ._budget import AbstractGoal
from ._ensemble import Ensemble, differences
from ._network import Data
from ._rounds import BINS, FEWEST, Bins, add, batches, counts_after, done, stacked, unstacked
from ._sampler import AbstractSampler, BlockLaw
from ._setup import prepare

_CHECKPOINT_SECONDS = 20.0


def sample(
    network: AbstractArchitecture,
    inputs: RealLike | Data,
    *,
    width: int,
    key: KeyLike,
    samples: int | None = None,
    until: AbstractGoal | None = None,
    max_seconds: float | int | None = None,
    layers: Sequence[int] | None = None,
    sampler: AbstractSampler | None = None,
    start: GaussianRows | FixedGram | None = None,
    control: bool | None = None,
    pairs: bool = False,
    responses: bool = False,
    tangent_kernel: bool = False,
    rates: LearningRates | None = None,
    batch: int | None = None,
    dtype: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | Callable[[int], None] = False,
) -> Ensemble:
    """Draw random networks of finite width and measure their kernels, with standard errors.

    Runs on all local devices; which networks are drawn depends on `key` and `batch`, not on the devices.
    Ctrl-C ends the run, with a warning, and returns what was measured so far; so does SIGTERM, in the
    main thread of a program that does not handle it otherwise.

    **Arguments**

    - `network`: a `ResNet` or an `MLP`. Other variances and scales do not compile again.
    - `inputs`: K^0, the kernel of h^0, shape (N, N); or `Data(x)`.
    - `width`: n.
    - `key`: a key such as `jax.random.key(0)` (or a raw one, `jax.random.PRNGKey(0)`).
    - `samples`: how many networks; rounded up to whole batches.
    - `until`: a precision to end at, such as `RelativeError(1e-3)`.
    - `max_seconds`: end after this time, but not before errors can be estimated. The first of the three
        that is reached ends the run.
    - `layers`: increasing layer numbers to measure, of 0 .. depth; by default the last.
    - `sampler`: `BlockLaw()` (default) or `RealWeights()`.
    - `start`: `GaussianRows()` (default), what a Gaussian read-in makes, or `FixedGram()`: h^0 of random
        orientation with h^0 h^0^T / n = K^0.
    - `control`: run a non-interacting reference on the same normals, for smaller errors. By default
        wherever it is possible: with `BlockLaw` and one layer a block.
    - `pairs`: covariances within pairs of inputs only, O(N^2) in place of O(N^4).
    - `responses`: derivatives with respect to K^0 too, along the paths of the networks. Needs K^0 of
        full rank.
    - `tangent_kernel`: the neural tangent kernel and its statistics too, of networks with several
        outputs. Needs `RealWeights`.
    - `rates`: the `LearningRates` that it is made with; by default those of the NTK parametrisation.
    - `batch`: networks drawn at once; by default what suits the cache.
    - `dtype`: of the samples; by default that of the inputs. Batches are added up in float64.
    - `checkpoint`: a .npz file, written every 20 seconds and at the end. If it exists, the run that
        wrote it goes on, bit by bit as if it had never ended. A link is followed.
    - `progress`: show a bar, or call a function with the number of networks so far.

    **Returns** an `Ensemble`.

    **Raises** `ValueError` or `TypeError`, naming the argument, for wrong values, sizes that do not fit
    into memory, a checkpoint of a different run, and networks that overflow.
    """
    if samples is None and until is None and max_seconds is None:
        raise ValueError("One of `samples`, `until` and `max_seconds` must say when to end.")
    if samples is not None and positive_integer("samples", samples) < FEWEST:
        raise ValueError(f"`samples` must be at least {FEWEST} for an estimate of errors; got {samples}.")
    if max_seconds is not None:
        scalar("max_seconds", max_seconds, positive=True)
    if control is not None:
        flag("control", control)
    for name, value in (("pairs", pairs), ("responses", responses), ("tangent_kernel", tangent_kernel)):
        flag(name, value)
    if until is not None and not isinstance(until, AbstractGoal):
        raise TypeError(f"`until` must be a goal such as `RelativeError(1e-3)`, got {described(until)}.")
    key = checked_key("key", key)
    path = None if checkpoint is None else _checked_path(checkpoint)
    previous = Ensemble.load(path) if path is not None and path.exists() else None
    if previous is not None and batch is None:
        batch = previous.configuration["batch"]
    draw, empty = prepare(
        network,
        inputs,
        key,
        width=width,
        samples=samples,
        layers=layers,
        sampler=BlockLaw() if sampler is None else sampler,
        start=GaussianRows() if start is None else start,
        control=control,
        pairs=pairs,
        responses=responses,
        tangent_kernel=tangent_kernel,
        rates=rates,
        batch=batch,
        dtype=dtype,
    )
    bins: Bins = [(0, {})] * BINS
    if previous is not None:
        _check_same(previous, empty, path)
        bins = unstacked(previous.counts, previous.sums)

    size = draw.plan.batch
    last = math.inf if samples is None else -(-samples // size)
    began = saved = time.monotonic()
    looked = done(bins, size)
    if until is not None and previous is not None and until.reached(previous):
        return previous
    ended = "samples"
    # Around the writing too: a signal that comes twice is one.
    with sigterm_as_interrupt():
        try:
            with reporting(progress, "networks", samples) as report:
                for sums in batches(draw, key, done(bins, size), last):
                    _check_finite(sums, draw.plan.dtype)
                    add(bins, size, sums)
                    number, now = done(bins, size), time.monotonic()
                    report(size * number)
                    if max_seconds is not None and now - began > max_seconds and number >= FEWEST:
                        ended = "time"
                        break
                    # Errors are looked at when there are a quarter more networks.
                    if until is not None and 4 * number >= 5 * looked + 4:
                        looked = number
                        if until.reached(_filled(empty, bins, ended)):
                            ended = "precision"
                            break
                    if path is not None and now - saved > _CHECKPOINT_SECONDS:
                        _write(_filled(empty, bins, "interrupted"), path)
                        saved = now
        except KeyboardInterrupt:
            if done(bins, size) < FEWEST:
                if path is not None and done(bins, size):
                    _write(_filled(empty, bins, "interrupted"), path)
                raise
            ended = "interrupted"
            warnings.warn(
                f"Interrupted: {size * done(bins, size):,} networks are returned.", stacklevel=2
            )
        found = _filled(empty, bins, ended)
        if path is not None:
            _write(found, path)
    return found


def _check_finite(sums: dict[str, np.ndarray], dtype: str) -> None:
    if not all(np.all(np.isfinite(values)) for values in sums.values()):
        raise ValueError(
            f"Networks overflow in {dtype}: reduce the residual scale, depth or variances, or sample in "
            "float64."
        )


def _filled(empty: Ensemble, bins: Bins, ended: str) -> Ensemble:
    counts, sums = stacked(bins)
    where = lambda e: (e.counts, e.sums, e.ended)
    return eqx.tree_at(where, empty, (counts, sums, ended), is_leaf=lambda x: x is empty.sums)


def _checked_path(checkpoint) -> pathlib.Path:
    try:
        path = pathlib.Path(checkpoint)
    except TypeError as error:
        raise TypeError(f"`checkpoint` must be a path, got {described(checkpoint)}.") from error
    if path.suffix != ".npz":
        raise ValueError(f"`checkpoint` must end in .npz, got {str(path)!r}.")
    folder = pathlib.Path(os.path.realpath(path)).parent  # where a link leads to
    if not folder.is_dir():
        missing = folder if path.is_symlink() else path.parent
        raise ValueError(f"`checkpoint`: there is no folder {str(missing)!r}.")
    if path.is_dir():
        raise ValueError(f"`checkpoint` must be a file, but {str(path)!r} is a folder.")
    return path


def _check_same(previous: Ensemble, now: Ensemble, path) -> None:
    if differing := differences(now, previous, ("versions",)):
        raise ValueError(f"`checkpoint` {path} is of another run, which differs in: {differing}.")
    size = previous.configuration["batch"]
    if not np.array_equal(previous.counts, size * counts_after(previous.samples // size)):
        raise ValueError(f"`checkpoint` {path} is damaged: its bins are not those of a run.")


def _write(ensemble: Ensemble, path: pathlib.Path) -> None:
    """A disk that is full must not cost what is in memory: a warning, and the older file stays."""
    try:
        ensemble.save(path)
    except OSError as error:
        message = (
            f"The checkpoint {path} could not be written ({error.strerror}): the run goes on without."
        )
        warnings.warn(message, stacklevel=3)
