"""Keyed random streams: every draw is a pure function of (seed, stream, tile, event, index)."""

from __future__ import annotations

import zlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from analogpde.tile.kernels import fill_read_segments, fill_segments


class Purpose(IntEnum):
    """What a draw is for; two purposes never share a stream."""

    PROGRAMMING = 0
    READ = 1
    PROBE = 2
    MULTIPLY = 3


def stream(purpose: Purpose, name: str = "") -> int:
    """Return the 32-bit stream word of a purpose and the name (options prefix) of the matrix on the tiles."""
    return ((zlib.crc32(name.encode()) & 0x3FFFFFFF) << 2) | int(purpose)


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
    fill_segments(out, offsets, np.uint64(seed), np.uint64(word), tiles, np.uint64(event & 0xFFFFFFFF))
    return out


def read_normal(
    offsets: NDArray[np.int64], *, seed: int, word: int, tiles: NDArray[np.int64], event: int,
) -> NDArray[np.float32]:
    """Draw what the cells of many tiles read in one shot: zero mean, unit variance, 2^14 values of a normal each.

    Arguments and order as of `normal`; within four deviations. `InvBank.shoot` draws the same.
    """
    out = np.empty(int(offsets[-1]), np.float32)
    fill_read_segments(out, offsets, np.uint64(seed), np.uint64(word), tiles, np.uint64(event & 0xFFFFFFFF))
    return out
