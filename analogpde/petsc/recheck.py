"""KSPs that take the preconditioner for fixed and linear, which tiles are not: their 'converged' is checked."""

from __future__ import annotations

import math
import re

from analogpde.petsc.stack import PETSc

_NEED_A_FIXED_PC = (
    "bcgs", "bcgsl", "bicg", "cg", "cgs", "cr", "dgmres", "fbcgs", "fbcgsr", "gmres", "groppcg", "ibcgs", "lgmres",
    "minres", "pgmres", "pipebcgs", "pipecg", "pipecr", "qmrcgs", "symmlq", "tcqmr", "tfqmr")
"""Types that update the residual, or its norm, by recurrences that hold for such a preconditioner only."""
_INSIDE = re.compile(r"(mg_(levels|coarse|fine)|sub|fieldsplit|ksp|redundant|telescope)_")
"""Where PETSc's preconditioners put the options prefix of the solvers in them behind their own."""
LARGEST = 10.0
"""Times the tolerance that a residual may have and still pass for what rounding and one noisy application leave."""
_SAID = (PETSc.KSP.ConvergedReason.CONVERGED_RTOL, PETSc.KSP.ConvergedReason.CONVERGED_ATOL,
         PETSc.KSP.ConvergedReason.CONVERGED_HAPPY_BREAKDOWN)


def needs_a_fixed_pc(ksp: PETSc.KSP) -> bool:
    """Tell whether a KSP takes the preconditioner for fixed and linear, and its residuals for those of an answer."""
    if (ksp.getOptionsPrefix() or "").endswith("esteig_"):
        return False  # GAMG's and Chebyshev's look at the largest eigenvalue: an estimate, no answer
    return ksp.getType() in _NEED_A_FIXED_PC


def fixed_pc_around(ksp: PETSc.KSP) -> str:
    """Return the option that tells the type of the KSP whose preconditioner this one is part of; '' if it is flexible.

    Nothing leads from an inner solver to the outer one: its type is known by its option only.
    """
    if ksp.getTabLevel() == 0 or ksp.getType() == "analog":
        return ""
    prefix = ksp.getOptionsPrefix() or ""
    option = prefix[: inside.start() if (inside := _INSIDE.search(prefix)) else 0] + "ksp_type"
    kind = PETSc.Options().getString(option, "")
    return f"-{option}" if not kind or kind in _NEED_A_FIXED_PC else ""


def excess(ksp: PETSc.KSP, b: PETSc.Vec, x: PETSc.Vec, *, transposed: bool) -> float:
    """Return how many times its tolerance the residual is of a KSP that says it has converged. Collective.

    The residual is formed anew, in the norm in which the KSP tests it; a preconditioned norm costs two more
    applications. 0 where there is nothing to compare with: the KSP does not say so, goes by no norm, by a test of the
    user's, or by the first residual of a guess.
    """
    norm_type = ksp.getNormType()
    first = PETSc.Options(ksp.getOptionsPrefix() or "").getBool("ksp_converged_use_initial_residual_norm", False)
    if (ksp.getConvergedReason() not in _SAID or norm_type == PETSc.KSP.NormType.NONE or first
            or ksp.getConvergenceTest() is not None):
        return 0.0
    matrix, pc = ksp.getOperators()[0], ksp.getPC()
    residual, work = b.duplicate(), b.duplicate()
    (matrix.multTranspose if transposed else matrix.mult)(x, residual)
    residual.aypx(-1.0, b)
    space = matrix.getTransposeNullSpace() if transposed else matrix.getNullSpace()

    def measured(vector: PETSc.Vec) -> float:
        if norm_type == PETSc.KSP.NormType.UNPRECONDITIONED:
            return float(vector.norm())
        (pc.applyTranspose if transposed else pc.apply)(vector, work)
        if space.handle:
            space.remove(work)
        if norm_type == PETSc.KSP.NormType.NATURAL:
            return math.sqrt(abs(vector.dot(work)))
        return float(work.norm())

    rtol, atol, _, _ = ksp.getTolerances()
    tolerance, found = max(rtol * measured(b), atol), measured(residual)
    residual.destroy()
    work.destroy()
    if not math.isfinite(found):
        return math.inf
    return found / tolerance if tolerance > 0.0 else math.inf if found > 0.0 else 0.0
