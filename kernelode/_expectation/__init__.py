from .chaos import hermite_spectrum as hermite_spectrum, pair_coefficients as pair_coefficients
from .moments import (
    Moments as Moments,
    pair_moment as pair_moment,
    pair_moments as pair_moments,
    triangle_moment as triangle_moment,
    variance_derivatives as variance_derivatives,
    variance_moment as variance_moment,
)
