"""Fields for ParaView: one time series, in the best format that fits the functions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import dolfinx
from dolfinx import fem, io


class FieldWriter:
    """Writes functions of one mesh at several times. Collective.

    XDMF with HDF5 if every function has the mesh's own degree (any ParaView reads it); else VTX (ADIOS2), which keeps
    higher degrees; else PVD with VTU files. A format that this build of DOLFINx lacks is passed over.

    Args:
        stem: path of the file without suffix.
        functions: scalar Lagrange functions of one mesh.
    """

    def __init__(self, stem: Path, functions: Sequence[fem.Function]) -> None:
        self.functions = list(functions)
        mesh = functions[0].function_space.mesh
        degrees = {function.function_space.element.basix_element.degree for function in functions}
        # XDMF holds straight cells only: DOLFINx writes curved ones, but ParaView shows them without their values.
        plain = degrees == {1} and mesh.geometry.cmaps[0].degree == 1
        self._xdmf: io.XDMFFile | None = None
        self._other: io.VTXWriter | io.VTKFile | None = None
        if plain:
            self.path = stem.with_suffix(".xdmf")
            self._xdmf = io.XDMFFile(mesh.comm, self.path, "w")
            self._xdmf.write_mesh(mesh)
        elif dolfinx.has_adios2 and len(degrees) == 1:
            self.path = stem.with_suffix(".bp")
            self._other = io.VTXWriter(mesh.comm, self.path, self.functions,
                                       mesh_policy=io.VTXMeshPolicy.reuse)
        else:
            self.path = stem.with_suffix(".pvd")
            self._other = io.VTKFile(mesh.comm, self.path, "w")

    @property
    def files(self) -> list[Path]:
        """Files (or folders) that make up the series."""
        return [self.path, self.path.with_suffix(".h5")] if self._xdmf is not None else [self.path]

    def write(self, time: float) -> None:
        """Write all functions as they are at `time` (s)."""
        if self._xdmf is not None:
            for function in self.functions:
                self._xdmf.write_function(function, time)
        elif isinstance(self._other, io.VTKFile):
            self._other.write_function(self.functions, time)
        elif self._other is not None:
            self._other.write(time)

    def close(self) -> None:
        """Finish the files; writing again is an error."""
        writer = self._xdmf or self._other
        if writer is not None:
            writer.close()

    def __enter__(self) -> FieldWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            # One error is enough: a file that cannot be finished must not hide why.
            with contextlib.suppress(RuntimeError):
                self.close()


class NoWriter:
    """Stands for a FieldWriter where nothing is to be written."""

    files: tuple[Path, ...] = ()

    def write(self, time: float) -> None:
        """Do nothing."""

    def __enter__(self) -> NoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        pass
