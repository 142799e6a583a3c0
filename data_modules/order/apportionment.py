"""Convert exact shares to whole sequences.

Treat the n-th sequence of a source as a job that may be done from one interval on and must be done by the end of
another. Drawing the fractions that the weights require satisfies all these windows, so whole sequences can satisfy the
windows too (the transport polytope is integral). For jobs of equal length, "earliest deadline first" is known to find
such a schedule. (Drawing from the source with the largest deficit, without deadlines, can fall behind by the logarithm
of the number of sources.)

A long run is scheduled in two stages. First between blocks of steps: at the block borders, each source has its exact
share, rounded down or up. Then, where needed, inside a block: each count lies between the counts at the block's
borders, and within 2 of the exact share. Such windows can always be satisfied, because the counts at both borders are
within 1 of the exact share.
"""

import numpy as np

from data_modules.order.exact_shares import ONE, SHARE_BITS, ExactShares

_NEVER = np.iinfo(np.int64).max


def apportion_at_block_ends(shares: ExactShares) -> np.ndarray | None:
    """Return the number of sequences drawn before each block border, (borders, sources) int64, or None.

    Each is the exact share rounded down or up. None: there is no such schedule; this happens only if the run starts
    with a carry.
    """
    ends = shares.at_borders[1:]
    lower, upper = ends >> SHARE_BITS, -(-ends >> SHARE_BITS)
    rates = shares.last_rates() * shares.block
    missing = (lower[-1] + 1) * ONE - ends[-1]
    # when the next sequence would be due, in blocks, if the last weights continued forever
    beyond = np.where(rates > 0, len(ends) - 1 + -(-missing // np.maximum(rates, 1)), _NEVER)
    counts = _earliest_deadline_first(lower, upper, totals=ends.sum(axis=1) >> SHARE_BITS, beyond=beyond)
    return None if counts is None else np.concatenate([np.zeros_like(counts[:1]), counts])


def apportion_within_block(ends: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the number of sequences drawn by the end of each step of a block, (steps, sources) int64.

    Args:
        ends: (steps, sources) exact shares at the end of each step.
        before: (sources,) counts at the start of the block.
        after: (sources,) counts at the end of the block.
    """
    lower = np.maximum(before, (ends >> SHARE_BITS) - 1)
    upper = np.minimum(after, -(-ends >> SHARE_BITS) + 1)
    lower[-1] = after
    beyond = np.full_like(after, _NEVER)
    counts = _earliest_deadline_first(lower, upper, totals=ends.sum(axis=1) >> SHARE_BITS, beyond=beyond)
    assert counts is not None, "earliest deadline first found no schedule between two borders"
    return counts


def _earliest_deadline_first(
    lower: np.ndarray, upper: np.ndarray, *, totals: np.ndarray, beyond: np.ndarray
) -> np.ndarray | None:
    """Return non-decreasing counts at the end of each interval, (intervals, sources); None if there are none.

    Args:
        lower: (intervals, sources) minimum counts at the end of each interval, non-decreasing.
        upper: (intervals, sources) maximum counts, non-decreasing.
        totals: (intervals,) counts of all sources together.
        beyond: (sources,) interval after the last in which the next sequence of a source would be due.
    """
    most_ahead = int((upper - lower).max(initial=0))
    deadlines = np.empty((len(lower), most_ahead, lower.shape[1]), dtype=np.int64)  # of the sequences after `lower`
    for k, column in enumerate(lower.T):
        for ahead in range(most_ahead):
            interval = np.searchsorted(column, column + ahead + 1)
            deadlines[:, ahead, k] = np.where(interval < len(column), interval, beyond[k])
    counts = []
    drawn = [0] * lower.shape[1]
    # plain lists, because these rows are too short for numpy to be faster
    n_sources = lower.shape[1]
    flat = deadlines.reshape(len(lower), most_ahead * n_sources)  # few lists: each one costs the garbage collector
    rows = zip(lower.tolist(), upper.tolist(), totals.tolist(), flat.tolist(), strict=True)
    for least, most, total, due in rows:
        drawn = list(map(max, drawn, least))
        missing = total - sum(drawn)
        if missing < 0:
            return None
        if missing:
            next_ones = [
                (due[ahead * n_sources + k], ahead, k)
                for k in range(n_sources)
                for ahead in range(drawn[k] - least[k], most[k] - least[k])
            ]
            if len(next_ones) < missing:
                return None
            for _, _, k in sorted(next_ones)[:missing]:
                drawn[k] += 1
        counts.append(drawn.copy())
    return np.array(counts, dtype=np.int64).reshape(lower.shape)
