"""Amplifiers at the end of their swing: a box, not a clipped answer.

Where the swing ends, the loop is open: the other outputs settle as if this one were a source. With K v = f the loop
that never ends there, the steady state is the box problem |v_i| ≤ V with K v − f = 0 inside, at most 0 at +V and at
least 0 at −V. It has one solution if K is a P-matrix (definite symmetric part, or M-matrix). Behind wires the row node
of an open loop also feeds its neighbours: K v − D δ = f, δ_i the voltage of row node i beyond what its amplifier would
hold it at, D the load of `analogpde.tile.loop`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_MOST = 50


def saturate(matrices: Array, load: Array, free: Array, swing: float) -> tuple[Array, NDArray[np.bool_]]:
    """Return where loops settle whose amplifiers end at ±swing, by a primal–dual active set (Bergounioux et al. 1999).

    Args:
        matrices: of the loops, shape (K, n, n). load: of the rows, shape (K, n) or (K, n, n).
        free: where they would settle without an end, V, shape (K, n).
        swing: V.

    Returns:
        Voltages, shape (K, n), and whether an output is at the end, shape (K,). A tile for which no consistent set was
        found in 50 steps gets the last one's voltages, clipped.
    """
    out = free.copy()
    ended = (np.abs(free) > swing).any(axis=1)
    which = np.flatnonzero(ended & np.isfinite(free).all(axis=1))
    if not len(which):
        return out, ended
    matrix, n = matrices[which], matrices.shape[1]
    if load.ndim == 3:
        feed = load[which]
    else:
        feed = np.zeros(matrix.shape)
        feed[:, np.arange(n), np.arange(n)] = load[which]
    force = np.einsum("kij,kj->ki", matrix, free[which])
    volts = free[which]
    held = np.where(np.abs(volts) > swing, np.sign(volts), 0.0)
    left = np.arange(len(which))
    for _ in range(_MOST):
        at_end = held[left] != 0
        fixed = swing * held[left]
        system = np.where(at_end[:, None, :], -feed[left], matrix[left])
        right = force[left] - np.einsum("kij,kj->ki", matrix[left], fixed)
        found = np.linalg.solve(system, right[:, :, None])[:, :, 0]
        now = np.where(at_end, fixed, found)
        stays = at_end & (found * held[left] <= 0)
        new = np.where(stays, held[left], np.where(~at_end & (np.abs(now) > swing), np.sign(now), 0.0))
        volts[left] = now
        changed = (new != held[left]).any(axis=1)
        held[left] = new
        left = left[changed]
        if not len(left):
            break
    out[which] = np.clip(volts, -swing, swing)
    return out, ended
