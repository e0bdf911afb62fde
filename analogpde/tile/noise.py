"""Keyed random streams: every draw is a pure function of (seed, stream, tile, event, index).

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), counter based, so that no state is
kept, no tile depends on another, and no rank count or batch order changes what a tile draws.
"""

from __future__ import annotations

import math
import zlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from analogpde.compiled import compiled

_LOW = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers and Weyl increments of Philox4x32 (Salmon et al., table 2)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


class Purpose(IntEnum):
    """What a draw is for; two purposes never share a stream."""

    PROGRAMMING = 0
    READ = 1
    PROBE = 2


def stream(purpose: Purpose, name: str = "") -> int:
    """Return the 32-bit stream word of a purpose and the name (options prefix) of the matrix on the tiles."""
    return ((zlib.crc32(name.encode()) & 0x3FFFFFFF) << 2) | int(purpose)


@compiled
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Return the four 32-bit words of Philox4x32-10 for a counter and a key (all as uint64 below 2^32)."""
    low = np.uint64(_LOW)
    half = np.uint64(32)
    c0, c1, c2, c3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    k0, k1 = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        p0 = np.uint64(_M0) * c0
        p1 = np.uint64(_M1) * c2
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & low, (p0 >> half) ^ c3 ^ k1, p0 & low
        k0 = (k0 + np.uint64(_W0)) & low
        k1 = (k1 + np.uint64(_W1)) & low
    return c0, c1, c2, c3


@compiled
def fill_normal(out, seed, word, tile, event):  # type: ignore[no-untyped-def]
    """Fill `out` with independent standard normal draws of one tile and event (Box–Muller)."""
    scale = 1.0 / 4294967296.0
    key0, key1 = np.uint64(seed) & np.uint64(_LOW), np.uint64(seed) >> np.uint64(32)
    n = out.size
    for block in range((n + 3) // 4):
        u0, u1, u2, u3 = philox(block, tile, event, word, key0, key1)
        # half a unit keeps the logarithm finite and the draws symmetric
        radius0 = math.sqrt(-2.0 * math.log((np.float64(u0) + 0.5) * scale))
        radius1 = math.sqrt(-2.0 * math.log((np.float64(u2) + 0.5) * scale))
        angle0 = 2.0 * math.pi * np.float64(u1) * scale
        angle1 = 2.0 * math.pi * np.float64(u3) * scale
        i = 4 * block
        out[i] = radius0 * math.cos(angle0)
        if i + 1 < n:
            out[i + 1] = radius0 * math.sin(angle0)
        if i + 2 < n:
            out[i + 2] = radius1 * math.cos(angle1)
        if i + 3 < n:
            out[i + 3] = radius1 * math.sin(angle1)


@compiled
def _fill_segments(out, offsets, seed, word, tiles, event):  # type: ignore[no-untyped-def]
    for k in range(tiles.size):
        fill_normal(out[offsets[k]:offsets[k + 1]], seed, word, tiles[k], event)


def normal(
    offsets: NDArray[np.int64], *, seed: int, word: int, tiles: NDArray[np.int64], event: int,
) -> NDArray[np.float64]:
    """Draw standard normal numbers for many tiles.

    Args:
        offsets: K+1 offsets; tile k draws numbers offsets[k]…offsets[k+1]−1.
        seed: the user's seed, 0 … 2^63 − 1.
        word: stream word from `stream`.
        tiles: global tile ids, below 2^32, shape (K,).
        event: number of the programming or of the shot, below 2^32.

    Returns:
        Draws, shape (offsets[K],).
    """
    out = np.empty(int(offsets[-1]))
    _fill_segments(out, offsets, np.uint64(seed), np.uint64(word), tiles, np.uint64(event & _LOW))
    return out
