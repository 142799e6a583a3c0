"""Whole sequences out of exact shares.

Think of the n-th sequence of a source as a job that may be done from one interval on and must be done by the end of another.
Drawing fractions of sequences, as the weights say, meets all these windows, so whole sequences can meet them too (the transport
polytope is integral), and "earliest deadline first" is known to find such a schedule for jobs of equal length. (Taking the
largest deficit first, without deadlines, can fall behind by the logarithm of the number of sources.)

A long run is scheduled twice. First from block to block of steps: at their borders each source has its exact share rounded down
or up. Then, wherever it is wanted, inside a block: each count lies between those at the block's borders and less than two from
the exact share. That such windows can always be met follows from the two borders' being less than one away from it.
"""

import numpy as np

from data_modules.exact_shares import ONE, SHARE_BITS, ExactShares

_NEVER = np.iinfo(np.int64).max


def apportion_at_block_ends(shares: ExactShares) -> np.ndarray | None:
    """Sequences drawn before each border of the blocks: (borders, sources) int64, each share rounded down or up.

    None: there is no such schedule, which can only be where something was owed at the beginning.
    """
    ends = shares.at_borders[1:]
    lower, upper = ends >> SHARE_BITS, -(-ends >> SHARE_BITS)
    rates = shares.last_rates() * shares.block
    missing = (lower[-1] + 1) * ONE - ends[-1]
    # when the next sequence would be due, in blocks, if the last weights went on for ever
    beyond = np.where(rates > 0, len(ends) - 1 + -(-missing // np.maximum(rates, 1)), _NEVER)
    counts = _earliest_deadline_first(lower, upper, totals=ends.sum(axis=1) >> SHARE_BITS, beyond=beyond)
    return None if counts is None else np.concatenate([np.zeros_like(counts[:1]), counts])


def apportion_within_block(ends: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Sequences drawn by the end of each step of a block, (steps, sources) int64.

    Args:
        ends: exact shares by the end of each step.
        before: (sources,) counts at the block's beginning.
        after: those at its end.
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
    """Counts by the end of each interval, (intervals, sources), never falling; None: there are none.

    Args:
        lower: what must be drawn by the end of each interval, (intervals, sources), never falling.
        upper: what may be drawn by then, likewise.
        totals: what is drawn of all sources together, (intervals,).
        beyond: (sources,) the interval after the last in which the next sequence of a source would be due.
    """
    most_ahead = int((upper - lower).max(initial=0))
    deadlines = np.empty((len(lower), most_ahead, lower.shape[1]), dtype=np.int64)  # of the sequences after `lower`
    for k, column in enumerate(lower.T):
        for ahead in range(most_ahead):
            interval = np.searchsorted(column, column + ahead + 1)
            deadlines[:, ahead, k] = np.where(interval < len(column), interval, beyond[k])
    counts = []
    drawn = [0] * lower.shape[1]
    # plain lists: these rows are too short for numpy to be fast
    rows = zip(lower.tolist(), upper.tolist(), totals.tolist(), deadlines.tolist(), strict=True)
    for least, most, total, due in rows:
        drawn = list(map(max, drawn, least))
        missing = total - sum(drawn)
        if missing < 0:
            return None
        if missing:
            next_ones = [
                (due[ahead][k], ahead, k)
                for k in range(len(drawn))
                for ahead in range(drawn[k] - least[k], most[k] - least[k])
            ]
            if len(next_ones) < missing:
                return None
            for _, _, k in sorted(next_ones)[:missing]:
                drawn[k] += 1
        counts.append(drawn.copy())
    return np.array(counts, dtype=np.int64).reshape(lower.shape)
