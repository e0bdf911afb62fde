"""How fast a loop settles, and what it answers when it is read too early.

One pole per amplifier gives dv/dt = −w D⁻¹ (K v − b), w = 2π GBW, K the matrix of the loop and D the load of its rows
(`analogpde.tile.loop`). The slowest mode decays with w min Re λ(D⁻¹K): to b bits, half a last place, in
ln(2^(b+1))/(w min Re λ). Inverters with a pole w' = 2π GBW'/2 double the unknowns, y their outputs:

    dv/dt = −w D⁻¹ ((K + M) v + M y − b),   dy/dt = −w' (y + v),   M what the inverters drive.

One bandwidth in rows and inverters halves the speed for a Laplacian (docs/circuit.md).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.tile.factors import Factors
from analogpde.tile.loop import Loop

Array = NDArray[np.float64]
IDEAL_BITS = 24  # that ideal converters are taken to wait for
_STEPS = 16  # of the Krylov space of the inverse; the slow modes of PDE blocks are well apart
_REAL = 1e-3


def bits_of(chip: Chip) -> int:
    """Return to how many bits a loop is let settle."""
    return IDEAL_BITS if chip.adc.bits is None else chip.adc.bits


def _slowness(chip: Chip) -> float:
    """Return w/w'; 0 if the inverters have no pole."""
    if chip.inverter.gain_bandwidth is None or chip.amplifier.gain_bandwidth is None:
        return 0.0
    return 2.0 * chip.amplifier.gain_bandwidth / chip.inverter.gain_bandwidth


def dynamics(loop: Loop, chip: Chip) -> Array:
    """Return J of dz/d(wt) = J z + …, shape (K, n, n), or (K, 2n, 2n) if the inverters have a pole."""
    matrix = loop.blocks.dense()
    n = matrix.shape[1]
    driven = matrix if loop.inverted is None else matrix + loop.inverted
    rate = -(np.linalg.solve(loop.load, driven) if loop.load.ndim == 3 else driven / loop.load[:, :, None])
    if loop.inverted is None:
        return np.asarray(rate)
    minus = loop.inverted
    whole = np.zeros((len(matrix), 2 * n, 2 * n))
    whole[:, :n, :n] = rate
    whole[:, :n, n:] = -(np.linalg.solve(loop.load, minus) if loop.load.ndim == 3 else minus / loop.load[:, :, None])
    pole = 1.0 / _slowness(chip)
    diagonal = np.arange(n)
    whole[:, n + diagonal, diagonal] = whole[:, n + diagonal, n + diagonal] = -pole
    return whole


def slowest_rate(loop: Loop, factors: Factors, chip: Chip) -> Array:
    """Return min Re λ of each loop's dynamics in units of w, shape (K,), by a Krylov space of the inverse.

    Exact in the limit for a real slowest mode, which M-matrices and symmetric blocks have; where it turns out complex
    all eigenvalues are computed.

    Args:
        loop, factors: of K blocks. Tiles that are not regular get what they get.
    """
    count, n = factors.rows.shape
    slowness = _slowness(chip) if loop.inverted is not None else 0.0
    size = 2 * n if slowness else n
    inside = np.arange(n) < loop.blocks.sizes[:, None]
    groups = factors.groups

    def loaded(v: Array) -> Array:
        return np.einsum("kij,kj->ki", loop.load, v) if loop.load.ndim == 3 else loop.load * v

    def inverse(r: Array) -> Array:
        right = -loaded(r[:, :n])
        if slowness and loop.inverted is not None:
            right += slowness * np.einsum("kij,kj->ki", loop.inverted, r[:, n:])
        v = (right * inside).astype(factors.data.dtype)
        groups.solve(v)
        first = v.astype(np.float64)
        return np.concatenate((first, -first - slowness * r[:, n:]), axis=1) if slowness else first

    steps = max(1, min(_STEPS, int(loop.blocks.sizes.min(initial=size))))
    start = (1.0 + 0.3 * np.cos(2.4 * np.arange(n)) + 0.1 * np.random.default_rng(0).normal(size=n)) * inside
    space = np.zeros((count, steps + 1, size))
    space[:, 0, :n] = start / np.maximum(np.linalg.norm(start, axis=1, keepdims=True), 1e-30)
    projected = np.zeros((count, steps + 1, steps))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of a tile that is all but singular
        for step in range(steps):
            vector = inverse(space[:, step])
            for _ in range(2):  # twice is enough
                part = np.einsum("ksi,ki->ks", space[:, : step + 1], vector)
                projected[:, : step + 1, step] += part
                vector = vector - np.einsum("ks,ksi->ki", part, space[:, : step + 1])
            size_now = np.linalg.norm(vector, axis=1)
            # a space that is already invariant is not left
            live = size_now > 1e-6 * np.abs(projected[:, : step + 1, step]).max(axis=1)
            projected[:, step + 1, step] = np.where(live, size_now, 0.0)
            space[:, step + 1] = np.where(live[:, None], vector / size_now[:, None], 0.0)
        square = np.nan_to_num(projected[:, :steps])
        found = np.linalg.eigvals(square)
        slow = np.argmax(np.abs(found), axis=1)
        largest = found[np.arange(count), slow]
        rate = -(1.0 / largest).real
    complex_ones = np.flatnonzero(np.abs(largest.imag) > _REAL * np.abs(largest))
    if len(complex_ones):
        rate[complex_ones] = -np.linalg.eigvals(dynamics(loop.select(complex_ones), chip)).real.max(axis=1)
    return np.asarray(rate)


def settling_time(loop: Loop, factors: Factors, chip: Chip) -> Array:
    """Return the time that one shot of each tile takes, s, shape (K,): to `bits_of` bits, or as the chip says."""
    bandwidth = chip.amplifier.gain_bandwidth
    if bandwidth is None:
        return np.zeros(loop.blocks.count)
    if chip.amplifier.settle_time is not None:
        return np.full(loop.blocks.count, chip.amplifier.settle_time)
    rate = np.maximum(slowest_rate(loop, factors, chip), 1e-30)
    return np.asarray(np.log(2.0) * (bits_of(chip) + 1) / (2 * np.pi * bandwidth * rate))


def sampling(loop: Loop, chip: Chip) -> Array | None:
    """Return S of each tile, shape (K, n, n): read after the settling time from rest, the answer is S v, v settled.

    None if the chip waits until the loop has settled.
    """
    time, bandwidth = chip.amplifier.settle_time, chip.amplifier.gain_bandwidth
    if time is None or bandwidth is None:
        return None
    n = loop.blocks.size
    gone = scipy.linalg.expm(2 * np.pi * bandwidth * time * dynamics(loop, chip))
    if gone.shape[1] > n:  # at rest both parts are off by their settled values, v and −v
        gone = gone[:, :n, :n] - gone[:, :n, n:]
    return np.asarray(np.eye(n) - gone)
