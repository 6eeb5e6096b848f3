"""Ticks of logarithmic axes that span a factor of two as well as ten decades.

The only module that imports Matplotlib: others do so when they draw.
"""

import numpy as np
from matplotlib import ticker


class PlainLocator(ticker.Locator):
    """Ticks at 1, 2 and 5 times powers of ten; where there are few of them, evenly spaced; over many
    decades, at powers of ten."""

    def __call__(self):
        axis = self.axis
        assert axis is not None
        return self.tick_values(*axis.get_view_interval())

    def tick_values(self, vmin, vmax):
        low, high = sorted((float(vmin), float(vmax)))
        if not 0 < low < high:
            return np.array([])
        decades = np.log10(high / low)
        if decades > 2.5:
            stride = int(np.ceil(decades / 8))
            exponents = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 0.5, stride)
            return 10.0**exponents
        powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        ticks = np.multiply.outer(powers, [1.0, 2.0, 5.0]).ravel()
        inside = ticks[(ticks >= low) & (ticks <= high)]
        if len(inside) >= 3:
            return inside
        locator = ticker.MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
        even = np.asarray(locator.tick_values(low, high))
        return even[(even >= low) & (even <= high)]


def plain_formatter() -> ticker.Formatter:
    """Numbers as they are written, and powers of ten where they would be long."""

    def write(x, _):
        if 1e-3 <= abs(x) < 1e5:
            return f"{x:g}"
        exponent = int(np.floor(np.log10(abs(x)) + 1e-9))
        factor = x / 10.0**exponent
        times = "" if np.isclose(factor, 1) else rf"{factor:g} \times "
        return rf"${times}10^{{{exponent}}}$"

    return ticker.FuncFormatter(write)


def plain_minor_locator() -> ticker.Locator:
    """At every integer times a power of ten, without labels."""
    return ticker.LogLocator(subs=[2, 3, 4, 5, 6, 7, 8, 9], numticks=100)
