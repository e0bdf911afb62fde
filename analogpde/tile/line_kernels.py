"""Compiled kernels of a tile's lines: to volts before the loop settles, to the host's numbers after it."""

from __future__ import annotations

import numpy as np

from analogpde.compiled import compiled


@compiled
def _code(value, codes):  # type: ignore[no-untyped-def]
    """Round a fraction of the full scale to codes, which end at the full scale."""
    return min(max(np.rint(value * codes), -codes), codes) / codes if codes > 0 else value


@compiled
def _sample(matrix, volts, n, transposed, out):  # type: ignore[no-untyped-def]
    """Multiply by what an early reading makes of an answer, in place."""
    out[:n] = 0.0
    for i in range(n):
        if transposed:
            for j in range(n):
                out[j] += matrix[i, j] * volts[i]
        else:
            for j in range(n):
                out[i] += matrix[i, j] * volts[j]
    volts[:n] = out[:n]


@compiled
def drive(x, scale, driven, read, codes, offset, noise, full_scale, loop, sampling, transposed, repeat, largest, part,  # type: ignore[no-untyped-def]
          pending, volts):
    """Turn inputs into what drives the loops; return how many tiles are to settle.

    Args:
        x, scale: right-hand sides and scaling, shape (K, n). driven, read: lines, the first ones.
        codes, offset, noise, full_scale: of the DACs, `noise` with no rows if none.
        loop: offset of the loops, V. sampling: see `analogpde.tile.lines.Lines`, with no rows if none.
        repeat: 0: find `largest` and `pending`; tiles without an input answer zero, others no number, at once.
        part: of the full scale that the host uses. volts: written for tiles that are pending, shape (K, n).
    """
    count, n = x.shape
    work = np.empty(n)
    busy = 0
    for k in range(count):
        if repeat == 0:
            top, finite = 0.0, True
            for i in range(driven[k]):
                value = x[k, i] * scale[k, i]
                top = max(top, abs(value))
                finite = finite and abs(value) < np.inf
            largest[k], pending[k], part[k] = top, finite and top > 0.0, 1.0
            if not pending[k]:
                x[k, : read[k]] = 0.0 if finite else np.nan
        if not pending[k]:
            continue
        busy += 1
        row, top = volts[k], largest[k]
        for i in range(driven[k]):
            row[i] = x[k, i] * scale[k, i] / top * part[k]
        for i in range(driven[k]):
            row[i] = _code(row[i], codes) + offset[k, i]
        if noise.shape[0] > 0:
            for i in range(driven[k]):
                row[i] += noise[k, i]
        for i in range(driven[k]):
            row[i] *= full_scale[k]
        row[driven[k]:] = 0.0
        for i in range(n):
            row[i] += loop[k, i]
        if transposed and sampling.shape[0] > 0:
            _sample(sampling[k], row, n, True, work)
    return busy


@compiled
def over_swing(volts, swing, pending, over):  # type: ignore[no-untyped-def]
    """Tell which of the tiles that are pending have an output beyond the swing; return how many."""
    found = 0
    for k in range(pending.size):
        over[k] = False
        if pending[k]:
            for i in range(volts.shape[1]):
                over[k] = over[k] or abs(volts[k, i]) > swing
            found += over[k]
    return found


@compiled
def read_back(volts, scale, sign, read, codes, limit, offset, noise, full_scale, sampling, transposed, least, over,  # type: ignore[no-untyped-def]
              largest, part, pending, repeats, x):
    """Turn what the loops settled to into the host's numbers, in place on x; return how many tiles shoot again.

    Args:
        volts: outputs, shape (K, n); overwritten. scale, sign: of the blocks.
        read, full_scale, sampling, largest, part: see `drive`.
        codes, limit, offset, noise: of the ADCs; a limit of zero: the range follows the tile's largest output.
        least: part of the full scale below which what clipped is read as it is. over: tiles that clipped before.
        repeats: counted up.
    """
    n = volts.shape[1]
    work = np.empty(n)
    again = 0
    for k in range(pending.size):
        if not pending[k]:
            continue
        row, m = volts[k], read[k]
        if not transposed and sampling.shape[0] > 0:
            _sample(sampling[k], row, n, False, work)
        reach, clipped = limit, over[k]
        if limit == 0.0:
            for i in range(m):
                reach = max(reach, abs(row[i]))
        if not reach > 0.0:
            reach = 1.0
        for i in range(m):
            row[i] = row[i] / reach + offset[k, i]
        if noise.shape[0] > 0:
            for i in range(m):
                row[i] += noise[k, i]
        if limit > 0.0:
            for i in range(m):
                clipped = clipped or abs(row[i]) > 1.0
                row[i] = min(max(row[i], -1.0), 1.0)
        if clipped and 0.5 * part[k] >= least:
            part[k] *= 0.5
            repeats[k] += 1
            again += 1
            continue
        pending[k] = False
        for i in range(m):
            row[i] = _code(row[i], codes)
        full = full_scale[k] * part[k]
        for i in range(m):
            x[k, i] = row[i] * reach / full * largest[k] * scale[k, i] * sign[k]
    return again
