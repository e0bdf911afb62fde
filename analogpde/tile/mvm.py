"""The bit-sliced multiplier (HP-MVM): fixed-point products put together from narrow slices.

A matrix of `bits` bits is held as ⌈bits/3⌉ slices of 3 bits and multiplied with as many slices of the
vector; shift and add are digital and exact. What is emulated here is therefore fixed-point arithmetic:
the rounding of matrix and vector to `bits` bits below their largest magnitude.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SLICE_BITS = 3


def slices(bits: int) -> int:
    """Return the number of 3-bit slices that `bits` bits need."""
    return -(-bits // SLICE_BITS)


def to_fixed_point(values: NDArray[np.float64], bits: int, largest: float) -> NDArray[np.float64]:
    """Round values to fixed point.

    Args:
        values: what to round, any shape.
        bits: magnitude bits; the step is `largest`·2^(−bits), the largest value its own top code.
        largest: largest magnitude (over all ranks); 0 returns the values.

    Returns:
        The rounded values. From 53 bits up FP64 itself is the finer grid near `largest`.
    """
    if largest == 0.0 or bits >= 53:
        return values.copy()
    # a power of two as the exponent: scaling is then exact and a shift in the hardware
    step = 2.0 ** max(np.ceil(np.log2(largest)) - bits, -1074.0)  # FP64 itself ends at 2^-1074
    return np.asarray(np.rint(values / step) * step)
