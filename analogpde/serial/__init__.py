"""A x = b on emulated tiles without PETSc and MPI: `analogpde.solve` and `analogpde.program`."""

from analogpde.serial.program import ProgrammedMatrix, program, solve
from analogpde.serial.result import NotConverged, Result, Statistics

__all__ = ["NotConverged", "ProgrammedMatrix", "Result", "Statistics", "program", "solve"]
