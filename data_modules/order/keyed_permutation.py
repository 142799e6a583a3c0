"""Keyed permutations of 0 .. n-1 that can be evaluated for single elements, equal on every machine and numpy version.

A Feistel network permutes the numbers below the next power of four. Results outside 0 .. n-1 are passed through the
network again until they are inside (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
"""

from functools import lru_cache
from hashlib import blake2b

import numpy as np

_ROUNDS = 6


@lru_cache(maxsize=4096)
def permutation_key(*parts: object) -> np.ndarray:
    """Return round keys, (rounds,) uint64, computed from the text of the parts."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8")


def permute(values: np.ndarray, n: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Permute each value with a separate keyed permutation.

    Args:
        values: (m,) int64, each in 0 .. n-1.
        n: (m,) int64, size of each permutation.
        keys: (m, rounds) uint64, `permutation_key` of each permutation.

    Returns:
        (m,) int64, each in 0 .. n-1.
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
    """The finaliser of splitmix64: every input bit affects every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
