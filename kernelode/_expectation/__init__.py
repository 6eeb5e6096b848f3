from .accuracy import (
    expectation_error as expectation_error,
    gain_error as gain_error,
    has_known_accuracy as has_known_accuracy,
    kernel_error as kernel_error,
    pairs_error as pairs_error,
    tolerance as tolerance,
)
from .moments import (
    Estimate as Estimate,
    pair_moment as pair_moment,
    second_moments as second_moments,
    variance_moment as variance_moment,
)
from .public import (
    hermite_spectrum as hermite_spectrum,
    pair_coefficients as pair_coefficients,
    pair_moments as pair_moments,
    single_moments as single_moments,
    variance_derivatives as variance_derivatives,
)
