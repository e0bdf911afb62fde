"""What FP32-equivalent means, in numbers.

An answer is FP32-equivalent if its forward error ‖x − x₆₄‖₂/‖x₆₄‖₂ is at most 2^-23 and not above that of the
same system solved in float32, and its backward error ‖b − A x‖/(‖A‖ ‖x‖ + ‖b‖) is at most 2^-24.
"""

FORWARD_ERROR = 2.0**-23
BACKWARD_ERROR = 2.0**-24

# Where refinement stops. The forward error is only estimated while solving, and a well-conditioned system solved in
# float32 has one near 2^-25.3 (rounding x to FP32 alone: uniform in ±2^-24 relative, rms 2^-24/sqrt(3)·0.7), so the
# estimates must be a factor 8 below the limits.
STOP_FORWARD = FORWARD_ERROR / 8
STOP_BACKWARD = BACKWARD_ERROR / 8

# As PETSc has only relative tolerances, -ksp_rtol of exactly this value stands for the whole target.
FP32_RTOL = BACKWARD_ERROR
