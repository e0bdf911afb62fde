"""PDEs on emulated analog resistive-memory matrix solvers: `-ksp_type analog` and `-pc_type analog` for PETSc.

Without PETSc, for NumPy arrays and SciPy matrices: `analogpde.solve`.
This module imports nothing heavy: neither PETSc nor MPI nor a plotting library. Public names are fetched when asked
for; `import analogpde.petsc` is what registers the solver types.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analogpde.chip import PRESETS, Chip
    from analogpde.chip import load as load_chip
    from analogpde.errors import AnalogError, InvalidInput, ProgrammingFailed
    from analogpde.options import TABLE
    from analogpde.serial import NotConverged, Result, program, solve

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "TABLE",
    "AnalogError",
    "Chip",
    "InvalidInput",
    "NotConverged",
    "ProgrammingFailed",
    "Result",
    "__version__",
    "load_chip",
    "program",
    "solve",
]

_HOMES = {
    "PRESETS": ("analogpde.chip", "PRESETS"),
    "TABLE": ("analogpde.options", "TABLE"),
    "AnalogError": ("analogpde.errors", "AnalogError"),
    "Chip": ("analogpde.chip", "Chip"),
    "InvalidInput": ("analogpde.errors", "InvalidInput"),
    "ProgrammingFailed": ("analogpde.errors", "ProgrammingFailed"),
    "NotConverged": ("analogpde.serial", "NotConverged"),
    "Result": ("analogpde.serial", "Result"),
    "load_chip": ("analogpde.chip", "load"),
    "program": ("analogpde.serial", "program"),
    "solve": ("analogpde.serial", "solve"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'analogpde' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
