"""Register Python classes as real PETSc types, by petsc4py's own shared library and ctypes.

Only documented PETSc functions are called, every handle an opaque pointer; no compiler, no headers.
"""

from __future__ import annotations

import ctypes
import traceback
from typing import Any

from analogpde.petsc.stack import PETSc

_library = ctypes.PyDLL(PETSc.__file__)  # a look-up in petsc4py's module also searches libpetsc
_CREATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_thunks: dict[tuple[str, str], Any] = {}  # PETSc's function lists keep pointers to them for ever

_PETSC_ERR_USER = 83
_PETSC_ERROR_INITIAL = 0
_KSP_NORM_NONE, _KSP_NORM_PRECONDITIONED, _KSP_NORM_UNPRECONDITIONED = 0, 1, 2
_PC_LEFT, _PC_RIGHT = 0, 1


def function(name: str, *argument_types: Any) -> Any:
    """Return a PETSc function that answers an error code."""
    found = getattr(_library, name)
    found.argtypes, found.restype = argument_types, ctypes.c_int
    return found


def check(code: int) -> None:
    """Raise PETSc.Error for a nonzero error code."""
    if code:
        raise PETSc.Error(code)


def _push_error(error: BaseException, handle: int, where: str) -> int:
    """Put a Python exception on PETSc's error stack: none may leave a callback."""
    comm = ctypes.c_void_p()
    function("PetscObjectGetComm", ctypes.c_void_p, ctypes.c_void_p)(handle, ctypes.byref(comm))
    text = "".join(traceback.format_exception(error))[-1500:].replace("%", "%%")
    function("PetscError", ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int,
             ctypes.c_char_p)(comm, 0, where.encode(), __file__.encode(), _PETSC_ERR_USER, _PETSC_ERROR_INITIAL,
                              text.encode())
    return _PETSC_ERR_USER


def register(kind: str, name: str, python_class: str) -> None:
    """Make `name` a type of PETSc's KSP or PC.

    Args:
        kind: 'KSP' or 'PC'.
        name: the type name, as -ksp_type or -pc_type takes it.
        python_class: 'package.module.Class' that follows petsc4py's Python-type protocol.
    """
    if (kind, name) in _thunks:
        return
    set_type = function(f"{kind}SetType", ctypes.c_void_p, ctypes.c_char_p)
    set_class = function(f"{kind}PythonSetType", ctypes.c_void_p, ctypes.c_char_p)
    rename = function("PetscObjectChangeTypeName", ctypes.c_void_p, ctypes.c_char_p)

    def create(handle: int) -> int:  # called inside KSPSetType(ksp, name), operations already zeroed
        try:
            check(rename(handle, None))  # otherwise the next line is a no-op after type 'python'
            check(set_type(handle, b"python"))
            if kind == "KSP":
                norms = function("KSPSetSupportedNorm", ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int)
                # we judge by the true residual; without NORM_NONE the type could not be a smoother
                check(norms(handle, _KSP_NORM_UNPRECONDITIONED, _PC_LEFT, 3))
                check(norms(handle, _KSP_NORM_UNPRECONDITIONED, _PC_RIGHT, 2))
                check(norms(handle, _KSP_NORM_PRECONDITIONED, _PC_LEFT, 0))
                check(norms(handle, _KSP_NORM_NONE, _PC_LEFT, 1))
                check(norms(handle, _KSP_NORM_NONE, _PC_RIGHT, 1))
            check(set_class(handle, python_class.encode()))
            return int(rename(handle, name.encode()))
        except BaseException as error:
            return _push_error(error, handle, f"{kind}Create_{name}")

    thunk = _CREATE(create)
    check(function(f"{kind}Register", ctypes.c_char_p, _CREATE)(name.encode(), thunk))
    _thunks[kind, name] = thunk
