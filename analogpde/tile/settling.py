"""How fast a loop settles, and what it answers when it is read too early.

One pole per amplifier gives dv/dt = −w D⁻¹ (K v − b), w = 2π GBW, K the matrix of the loop and D the load of its rows
(`analogpde.tile.loop`). The slowest mode decays with w min Re λ(D⁻¹K): to b bits, half a last place, in
ln(2^(b+1))/(w min Re λ). Inverters with a pole w' = 2π GBW'/2 double the unknowns, y their outputs:

    dv/dt = −w D⁻¹ ((K + M) v + M y − b),   dy/dt = −w' (y + v),   M what the inverters drive.

One bandwidth in rows and inverters halves the speed for a Laplacian (docs/circuit.md). A second pole at p, q = 2π p,
lies behind the first, whose output is z:

    dv/dt = q (z − v),   dz/dt = −w D⁻¹ (K v − b) + (w/A) (v − z).

An eigenvalue μ of D⁻¹K then gives two of the loop, in units of w: s² + (q/w + 1/A) s + (q/w) μ = 0. A complex μ is
unstable where Re μ < (Im μ)²/(q/w + 1/A); of a real one both decay.
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
_ALIKE = 0.05
_INSTANTS = 2001  # at which a ringing mode is looked at


def bits_of(chip: Chip) -> int:
    """Return to how many bits a loop is let settle."""
    return IDEAL_BITS if chip.adc.bits is None else chip.adc.bits


def _slowness(chip: Chip) -> float:
    """Return w/w'; 0 if the inverters have no pole."""
    if chip.inverter.gain_bandwidth is None or chip.amplifier.gain_bandwidth is None:
        return 0.0
    return 2.0 * chip.amplifier.gain_bandwidth / chip.inverter.gain_bandwidth


def dynamics(loop: Loop, chip: Chip) -> Array:
    """Return J of the outputs, shape (K, n, n), then the inverters' and the first stages' if there are such poles."""
    matrix = loop.blocks.dense()
    n = matrix.shape[1]
    driven = matrix if loop.inverted is None else matrix + loop.inverted
    rate = -(np.linalg.solve(loop.load, driven) if loop.load.ndim == 3 else driven / loop.load[:, :, None])
    size = n if loop.inverted is None else 2 * n
    whole = np.zeros((len(matrix), size, size))
    whole[:, :n, :n] = rate
    diagonal = np.arange(n)
    if loop.inverted is not None:
        minus = loop.inverted
        whole[:, :n, n:] = -(np.linalg.solve(loop.load, minus) if loop.load.ndim == 3
                             else minus / loop.load[:, :, None])
        whole[:, n + diagonal, diagonal] = whole[:, n + diagonal, n + diagonal] = -1.0 / _slowness(chip)
    if chip.amplifier.second_pole is None:
        return whole
    second, loss = _second(chip)
    longer = np.zeros((len(matrix), size + n, size + n))
    longer[:, n:size, :size] = whole[:, n:]
    longer[:, size:, :size] = whole[:, :n]  # what drove the outputs drives the first stages
    longer[:, size + diagonal, diagonal] += loss
    longer[:, size + diagonal, size + diagonal] = -loss
    longer[:, diagonal, diagonal] = -second
    longer[:, diagonal, size + diagonal] = second
    return longer


def _second(chip: Chip) -> tuple[float, float]:
    """Return q/w, of a chip with a second pole, and 1/A."""
    amplifier = chip.amplifier
    if amplifier.second_pole is None or amplifier.gain_bandwidth is None:
        raise ValueError("no second pole")
    return amplifier.second_pole / amplifier.gain_bandwidth, 1.0 / amplifier.gain if amplifier.gain else 0.0


def fastest_growth(loop: Loop, chip: Chip) -> Array:
    """Return max Re λ of each loop's dynamics in units of w, shape (K,), from all its eigenvalues."""
    if chip.amplifier.second_pole is None or loop.inverted is not None:
        return np.asarray(np.linalg.eigvals(dynamics(loop, chip)).real.max(axis=1))
    return np.asarray(_modes(loop, chip)[0].real.max(axis=1))


def _modes(loop: Loop, chip: Chip) -> tuple[Array, float]:
    """Return of every mode of D⁻¹K the eigenvalue that decays slower, shape (K, n), and minus the sum of both.

    For amplifiers with a second pole and inverters without any.
    """
    matrix = loop.blocks.dense()
    seen = np.linalg.solve(loop.load, matrix) if loop.load.ndim == 3 else matrix / loop.load[:, :, None]
    second, loss = _second(chip)
    damping = second + loss
    # the principal root has the larger real part
    return 0.5 * (np.sqrt(damping**2 - 4.0 * second * np.linalg.eigvals(seen).astype(complex)) - damping), damping


def _slow_mode(loop: Loop, chip: Chip) -> tuple[Array, Array]:
    """Return of each loop the eigenvalue with the largest real part, and the other one of its mode, shape (K,).

    Of modes that ring, which decay alike unless the cells' errors have them differ a little, the one that does so
    slowest: answers are made of it.
    """
    found, damping = _modes(loop, chip)
    largest = found.real.max(axis=1, keepdims=True)
    alike = found.real >= largest - _ALIKE * np.abs(largest)
    slow = found[np.arange(len(found)), np.where(alike, np.abs(found), np.inf).argmin(axis=1)]
    return slow, -damping - slow


def _ringing_time(slow: Array, partner: Array, bits: int) -> Array:
    """Return when modes with two eigenvalues have settled from rest for good, shape (K,).

    From rest, outputs still, (s' exp(s t) − s exp(s' t))/(s' − s) is missing, which may ring; it stays below the
    critically damped (1 + σt) exp(−σt), σ = −Re s, and with it below half a last place after 2 ln 2^(bits+1)/σ.
    """
    end = 2.0 * np.log(2.0) * (bits + 1) / np.maximum(-slow.real, 1e-30)
    when = end[:, None] * np.linspace(0.0, 1.0, _INSTANTS)
    apart = partner - slow
    apart = np.where(np.abs(apart) < 1e-6 * np.abs(slow), 1e-6 * np.abs(slow), apart)[:, None]
    other = slow[:, None] + apart
    missing = np.abs((other * np.exp(slow[:, None] * when) - slow[:, None] * np.exp(other * when)) / apart)
    late = _INSTANTS - 1 - np.argmax(missing[:, ::-1] > 2.0 ** -(bits + 1), axis=1)
    return np.asarray(when[np.arange(len(when)), late])


def slowest_rate(loop: Loop, factors: Factors, chip: Chip) -> Array:
    """Return min Re λ of each loop's dynamics in units of w, shape (K,), by a Krylov space of the inverse.

    Exact in the limit for a real slowest mode, which M-matrices and symmetric blocks have; where it turns out complex
    all eigenvalues are computed, and so they are with a second pole, whose fast modes may ring.

    Args:
        loop, factors: of K blocks. Tiles that are not regular get what they get.
    """
    if chip.amplifier.second_pole is not None:
        return -fastest_growth(loop, chip)
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
        rate[complex_ones] = -fastest_growth(loop.select(complex_ones), chip)
    return np.asarray(rate)


def settling_time(loop: Loop, factors: Factors, chip: Chip) -> Array:
    """Return the time that one shot of each tile takes, s, shape (K,): to `bits_of` bits, or as the chip says."""
    bandwidth = chip.amplifier.gain_bandwidth
    if bandwidth is None:
        return np.zeros(loop.blocks.count)
    if chip.amplifier.settle_time is not None:
        return np.full(loop.blocks.count, chip.amplifier.settle_time)
    if chip.amplifier.second_pole is not None and loop.inverted is None:
        return _ringing_time(*_slow_mode(loop, chip), bits_of(chip)) / (2 * np.pi * bandwidth)
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
    # at rest every part is off by its settled value: v, −v of the inverters, v of first stages
    signs = [1.0] + [-1.0] * (loop.inverted is not None) + [1.0] * (chip.amplifier.second_pole is not None)
    missing = sum(sign * gone[:, :n, k * n : (k + 1) * n] for k, sign in enumerate(signs))
    return np.asarray(np.eye(n) - missing)
