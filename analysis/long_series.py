"""Series that are longer than a picture is wide, made short enough to draw."""

import numpy as np

from analysis.run_record import Series


def extremes(series: Series, *, most: int) -> Series:
    """The least and the greatest value of each of up to `most` / 2 groups of neighbours: what a line through all would show."""
    steps, values = series
    if len(steps) <= most:
        return series
    groups = np.array_split(np.arange(len(steps)), most // 2)
    places = [at[[values[at].argmin(), values[at].argmax()]] for at in groups]
    kept = np.unique(np.concatenate(places))
    return steps[kept], values[kept]


def means(series: Series, *, most: int) -> Series:
    """The mean step and value of each of up to `most` groups of neighbours."""
    steps, values = series
    if len(steps) <= most:
        return series
    starts = np.linspace(0, len(steps), most, endpoint=False).astype(int)
    sizes = np.diff([*starts, len(steps)])
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(values, starts) / sizes
