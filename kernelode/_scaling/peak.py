"""The maximum of a function known at log-spaced positions."""

import numpy as np
from jaxtyping import Float


def log_peak(
    positions: Float[np.ndarray, " points"], heights: Float[np.ndarray, " points"]
) -> float | None:
    """The position of the maximum, by the parabola in log position through the three highest points;
    None where the highest point is at an end, or beside one whose height is not finite."""
    heights = np.where(np.isfinite(heights), heights, -np.inf)
    top = int(np.argmax(heights))
    if top in (0, len(positions) - 1) or not np.all(np.isfinite(heights[top - 1 : top + 2])):
        return None
    below, at, above = heights[top - 1 : top + 2]
    curvature = below - 2 * at + above
    shift = (below - above) / (2 * curvature) if curvature < 0 else 0.0
    return float(positions[top] * (positions[1] / positions[0]) ** shift)
