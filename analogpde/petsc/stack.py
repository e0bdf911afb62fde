"""MPI, petsc4py and FEniCSx, loaded once and in the order that works.

Everything in `analogpde.petsc` takes `MPI` and `PETSc` from here. The order matters twice. With the
`dolfinx-solver-real` wheel libmpi is found only if mpi4py is loaded before petsc4py, which `import dolfinx_solver`
sees to. And PETSc reads the command line only if `petsc4py.init` runs before `petsc4py.PETSc` is first imported, so
it runs here, with `sys.argv`, unless the program has done it already.
"""

from __future__ import annotations

import sys

from analogpde.errors import AnalogError

INSTALL = (
    "On Linux x86-64: pip install 'analogpde[fenicsx]' (or: pip install dolfinx-solver-real). "
    "Elsewhere: conda install -c conda-forge fenics-dolfinx 'petsc=*=real*'. "
    "`python -m analogpde doctor` says what is there and what is not."
)


class StackError(AnalogError, ImportError):
    """PETSc or MPI is missing, or is of a kind that cannot be used."""


def load_in_order(argv: list[str]) -> None:
    """Import MPI, then PETSc with the command line `argv`, and check that this PETSc computes in real FP64.

    Does nothing but the check if the program has imported PETSc already. Every call checks again: a PETSc that was
    refused once is refused always.

    Args:
        argv: the command line, program name first.

    Raises:
        StackError: something is missing or of the wrong kind; the message says what to install.
    """
    if "petsc4py.PETSc" not in sys.modules:
        try:
            import dolfinx_solver  # noqa: F401 - the wheel; it loads MPI first and refuses a second PETSc
        except ModuleNotFoundError:
            pass  # a FEniCSx from conda-forge, a distribution or source needs no such help
        except (ImportError, RuntimeError, OSError) as error:
            raise StackError(f"the dolfinx-solver wheel cannot be used here: {error}") from error
    try:
        from mpi4py import MPI  # noqa: F401 - before petsc4py
    except (ImportError, RuntimeError, OSError) as error:
        raise StackError(f"no MPI for Python (mpi4py.MPI): {error}. {INSTALL}") from error
    try:
        import petsc4py

        if "petsc4py.PETSc" not in sys.modules:
            petsc4py.init(argv)
        from petsc4py import PETSc
    except (ImportError, RuntimeError, OSError) as error:
        raise StackError(f"no PETSc for Python (petsc4py): {error}. {INSTALL}") from error
    check_scalars(PETSc.ScalarType, PETSc.RealType)


def check_scalars(scalar: type, real: type) -> None:
    """Refuse a PETSc whose numbers are not real FP64.

    Args:
        scalar: PETSc's ScalarType, a NumPy type.
        real: PETSc's RealType, a NumPy type.

    Raises:
        StackError: this PETSc is complex, or of another precision.
    """
    names = (getattr(scalar, "__name__", str(scalar)), getattr(real, "__name__", str(real)))
    if names == ("float64", "float64"):
        return
    kind = "complex numbers" if names[0].startswith("complex") else f"{names[0]} numbers"
    raise StackError(
        f"this PETSc computes with {kind}; analogpde refines in real FP64 (float64). Install a real build of PETSc: "
        "pip uninstall dolfinx-solver dolfinx-solver-complex && pip install --force-reinstall dolfinx-solver-real, "
        "or conda install -c conda-forge 'petsc=*=real*', or on Debian set PETSC_DIR to the real variant."
    )


# A host program that is not Python may have no argv; and PETSc would take the `-c` of `python -c` for an option.
_argv = list(getattr(sys, "argv", []))
load_in_order([sys.executable, *_argv[1:]] if not _argv or _argv[0].startswith("-") else _argv)

from mpi4py import MPI  # noqa: E402 - only now may these be imported
from petsc4py import PETSc  # noqa: E402

__all__ = ["INSTALL", "MPI", "PETSc", "StackError", "check_scalars", "load_in_order"]
