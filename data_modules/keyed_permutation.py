"""Keyed permutations of 0 .. n-1 that answer for single elements, the same on every machine and numpy.

A Feistel network permutes the numbers below the next power of four; whoever lands outside 0 .. n-1 is sent through it
again until inside (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
"""

from functools import lru_cache
from hashlib import blake2b

import numpy as np

_ROUNDS = 6


@lru_cache(maxsize=4096)
def permutation_key(*parts: object) -> np.ndarray:
    """Round keys, (rounds,) uint64, that follow from the parts' text."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8")


def permute(values: np.ndarray, n: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The place of each value under a keyed permutation of its own.

    Args:
        values: (m,) int64, each in 0 .. n-1.
        n: (m,) int64, how many elements each permutation has.
        keys: (m, rounds) uint64, the permutations' `permutation_key`.
    """
    half_bits = np.maximum(1, (np.ceil(np.log2(np.maximum(n, 2))).astype(np.int64) + 1) // 2).astype(np.uint64)
    permuted = _feistel(values.astype(np.uint64), half_bits, keys)
    bound = n.astype(np.uint64)
    while len(outside := np.flatnonzero(permuted >= bound)):
        permuted[outside] = _feistel(permuted[outside], half_bits[outside], keys[outside])
    return permuted.astype(np.int64)


def _feistel(values: np.ndarray, half_bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    low = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & low
    for round_keys in keys.T:
        left, right = right, left ^ (_mix(right ^ round_keys) & low)
    return (left << half_bits) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
