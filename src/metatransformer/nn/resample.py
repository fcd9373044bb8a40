"""Series at evenly spread times, in numpy."""

import numpy as np


def resample_curves(values: np.ndarray, *, times: np.ndarray, columns: int) -> np.ndarray:
    """Returns ``values`` [t, c] as float64 ``[columns, c]``, spread evenly from first to last time.

    Linear between time steps; where several steps fall into one column, their mean, so that what is
    too fast to be drawn does not turn into something slow.
    """
    fine = max(1, -(-len(values) // columns))
    places = np.linspace(times[0], times[-1], columns * fine)
    curves = np.stack([np.interp(places, times, axis) for axis in values.T], axis=1)
    return curves.reshape(columns, fine, -1).mean(axis=1)
