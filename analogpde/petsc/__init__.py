"""The PETSc plugin: importing this registers `-ksp_type analog` and `-pc_type analog`."""

from analogpde.petsc import log as _log
from analogpde.petsc.log import session, write_report
from analogpde.petsc.register import register as _register

_register("KSP", "analog", "analogpde.petsc.ksp.AnalogKSP")
_register("PC", "analog", "analogpde.petsc.pc.AnalogPC")
_log.start()

__all__ = ["session", "write_report"]
