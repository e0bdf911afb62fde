"""What FP32-equivalent means, in numbers.

An answer is FP32-equivalent if its forward error ‖x − x₆₄‖₂/‖x₆₄‖₂ is at most 2^-23 and not above that of the
same system solved in float32, and its backward error ‖b − A x‖/(‖A‖ ‖x‖ + ‖b‖) is at most 2^-24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analogpde.refine.loop import Progress

FORWARD_ERROR = 2.0**-23
BACKWARD_ERROR = 2.0**-24

# Where refinement stops. The forward error is only estimated while solving, and a well-conditioned system solved in
# float32 has one near 2^-25.3 (rounding x to FP32 alone: uniform in ±2^-24 relative, rms 2^-24/sqrt(3)·0.7), so the
# estimates must be a factor 8 below the limits.
STOP_FORWARD = FORWARD_ERROR / 8
STOP_BACKWARD = BACKWARD_ERROR / 8

# Backward error at which FP64 itself ends, direct solvers too. Steps are then all rounding, and how fast they fall says
# nothing: the size of the last one must do. It must not be left out: a few large rows (Dirichlet values set by a
# penalty) make every backward error small.
FP64_ROUNDING = 2.0**-48

# Rows or unknowns of very different sizes make every normwise error small while ‖b − A x‖ is as large as ‖b‖: small
# components of x may be all wrong. No solve is called converged that leaves more of b than this.
LARGEST_RESIDUAL = 0.1

# Where rows differ in size by more, a plain correction must confirm an FP32-equivalent answer, and be at most so large.
WELL_SCALED = 2.0**20
CONFIRMED = FORWARD_ERROR / 2

# As PETSc has only relative tolerances, -ksp_rtol of exactly this value stands for the whole target.
FP32_RTOL = BACKWARD_ERROR


def fp32_equivalent(backward: float, relative: float, progress: Progress) -> bool:
    """Tell whether an iterate may be called FP32-equivalent.

    Args:
        backward: its backward error ‖r‖/(‖A‖ ‖x‖ + ‖b‖).
        relative: ‖r‖/‖b‖.
        progress: where the loop stands.
    """
    rounding = (backward <= FP64_ROUNDING and progress.correction <= STOP_FORWARD
                and progress.slow_estimate <= STOP_FORWARD)
    near = progress.forward_estimate <= STOP_FORWARD or rounding
    return backward <= STOP_BACKWARD and near and relative <= LARGEST_RESIDUAL
