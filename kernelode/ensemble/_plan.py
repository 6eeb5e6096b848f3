"""The static part of a run: quantities to measure, sizes, dtype."""

from typing import NamedTuple


class Plan(NamedTuple):
    """Static choices of a run.

    - `inputs`, `width`: N and n.
    - `neurons`: neurons that are simulated, the largest n_l.
    - `batch`: networks drawn at once; a batch is a unit of work, with a key of its own.
    - `layers`: where is measured, increasing.
    - `pairs`: keep covariances within pairs of inputs only.
    - `controlled`: run the reference chain alongside.
    - `responses`, `tangent_kernel`: measure them too.
    - `fixed_gram`: the start.
    - `dtype`: of the samples.
    """

    inputs: int
    width: int
    neurons: int
    batch: int
    layers: tuple[int, ...]
    pairs: bool
    controlled: bool
    responses: bool
    tangent_kernel: bool
    fixed_gram: bool
    dtype: str
