"""How a solve can end, and what a user should know about it."""

from __future__ import annotations

from enum import Enum

from analogpde.cost import Ledger

FLOOR = 1e-13  # of ‖b‖: a residual below it is near what FP64 can form
AT_THE_FLOOR = (
    "The residual is at the floor of FP64, but the target is not proven. Either the matrix is singular or nearly so, "
    "and the error along what it annihilates cannot be told: attach the null space (MatSetNullSpace), or set -ksp_rtol "
    "to be content with a small residual. Or the target is below that floor.")

FAR_GUESS = (
    "The initial guess leaves a residual beyond -ksp_divtol times the right-hand side, before any correction: start "
    "from zero or from a better guess, or raise -ksp_divtol.")


class Status(Enum):
    """An end of the outer loop: PETSc's reason (code) and a paragraph of advice."""

    CONVERGED_RTOL = (2, "The true residual met the relative tolerance.")
    CONVERGED_FP32 = (
        2,
        "FP32-equivalent: the estimated forward error is below 2^-23 and the backward error below 2^-24, with margin.",
    )
    CONVERGED_ATOL = (3, "The true residual met the absolute tolerance.")
    CONVERGED_ITS = (4, "The fixed number of iterations was done.")
    DIVERGED_ITS = (
        -3,
        "The largest number of outer iterations was reached. Raise -ksp_max_it, or look at the bits gained per step: "
        "well below one bit a step asks for better tiles (-analog_cell_bits, -pc_analog_slices) or an accelerator.",
    )
    DIVERGED_DTOL = (
        -4,
        "The residual grew beyond -ksp_divtol times the right-hand side. Corrections from the tiles do more harm than "
        "good: use an accelerator, a larger -pc_analog_shift, more -pc_analog_slices, or a smaller tile. A singular "
        "matrix without MatSetNullSpace does this too. Where rows differ in size by many orders of magnitude the "
        "residual may grow for a while: scale the system, or raise -ksp_divtol.",
    )
    DIVERGED_STAGNATED = (
        -5,
        "The residual stopped falling above the target. Either the tiles correct too little (more -analog_cell_bits, "
        "-analog_adc_bits or -pc_analog_slices, a smaller tile), or the matrix is singular (MatSetNullSpace), or the "
        "target is below the floor of FP64, 1e-16 times the condition number.",
    )
    DIVERGED_INDEFINITE = (
        -10,
        "The sign of pᵀAp changed between search directions: fcg needs a symmetric definite matrix. Use "
        "-ksp_analog_accelerator fgmres.",
    )
    DIVERGED_NANORINF = (
        -9,
        "The right-hand side, the initial guess or a residual is NaN or infinite, or one of matrix, right-hand side "
        "and answer so large or small (1e±305) that FP64 has no room. Check the assembly, or scale the system.",
    )
    DIVERGED_PC_FAILED = (
        -11,
        "The preconditioner failed in set-up or application, with the message above, or its answer is not finite: "
        "scale a system whose entries are near 1e±150.",
    )
    DIVERGED_USER = (-1, "The program's own convergence test stopped the solve.")

    @property
    def code(self) -> int:
        """PETSc's KSPConvergedReason."""
        return self.value[0]

    @property
    def advice(self) -> str:
        """What it means and what to try."""
        return self.value[1]


def clipping(operations: Ledger) -> str:
    """Return what to say of a solve that failed and whose outputs clipped in a third of the shots; '' if they did not.

    Args:
        operations: of the solve.
    """
    shots, again = operations.inv_shots, operations.inv_repeats
    if 3 * again < max(1, shots):
        return ""
    return (f"{again} of {shots} shots were repeats with less input, because outputs had clipped: the ranges of the "
            "converters do not fit. Lower -analog_dac_range, or raise -analog_adc_range or -analog_output_swing. ")


def sliced_floor(status: Status, bits: int, error: float, *, exact: bool) -> str:
    """Return what to say of the accuracy of a sliced residual.

    Args:
        status: how the solve ended. bits: of the residual. error: its difference from the true one, backward.
        exact: whether every slice product of the chip's multiplier is read to its last digit.
    """
    said = (f"The sliced residual ({bits} bits) differs from the true one by a backward error of {error:.1e}: nothing "
            "below that can be attained. ")
    if status is not Status.DIVERGED_STAGNATED:
        return said
    if exact:
        return said + "Raise -ksp_analog_residual_bits, ask for less by -ksp_rtol, or use the digital residual. "
    return said + ("The multiplier's own errors are part of it, which more bits do not cure: less "
                   "-analog_mvm_read_noise and -analog_mvm_programming_error, more -analog_mvm_adc_bits, a larger "
                   "-ksp_rtol, or the digital residual. ")
