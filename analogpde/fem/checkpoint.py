"""Checkpoints of a run: nodal values in the mesh's own order, in one file that is whole at every moment."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dolfinx import fem
from mpi4py import MPI
from numpy.typing import NDArray

from analogpde.errors import InvalidInput
from analogpde.fem.arguments import on_root

FORMAT = "analogpde-checkpoint/4"
_META = "meta"
_REMEDY = "Take another checkpoint, or begin the run anew."
_SHOWS = re.compile("monitor|view|reason|report")  # options that print


class NodeOrder:
    """The order in which the nodes of a mesh were given when it was made: the same on any number of ranks.

    Args:
        space: scalar Lagrange space of degree 1, or of the degree of the mesh's own geometry, whose nodes then are
            those of the mesh.
    """

    def __init__(self, space: fem.FunctionSpace) -> None:
        mesh = space.mesh
        self.comm = mesh.comm
        dofs, nodes = space.dofmap.list, mesh.geometry.dofmaps[0]
        if dofs.shape[1] not in (nodes.shape[1], mesh.topology.dim + 1):
            raise ValueError("the unknowns are not at the nodes of the mesh")
        numbers = np.full(space.dofmap.index_map.size_local + space.dofmap.index_map.num_ghosts, -1, dtype=np.int64)
        # Both number a cell's corners first and then its edges, so local numbers agree.
        numbers[dofs] = mesh.geometry.input_global_indices[nodes[:, : dofs.shape[1]]]
        self.owned = numbers[: space.dofmap.index_map.size_local]
        """Number of each owned unknown."""
        self.size = space.dofmap.index_map.size_global
        self._counts = self.comm.gather(len(self.owned))
        self._all = self._gather(self.owned)

    def _gather(self, values: NDArray) -> NDArray | None:
        if self._counts is None:
            self.comm.Gatherv(np.ascontiguousarray(values), None)
            return None
        everything = np.empty(self.size, dtype=values.dtype)
        self.comm.Gatherv(np.ascontiguousarray(values), (everything, self._counts))
        return everything

    def gather(self, values: NDArray) -> NDArray | None:
        """Return owned values of all ranks in the mesh's order on rank 0, None elsewhere. Collective."""
        parts = self._gather(values)
        if parts is None or self._all is None:
            return None
        ordered = np.empty_like(parts)
        ordered[self._all] = parts
        return ordered

    def scatter(self, ordered: NDArray | None) -> NDArray:
        """Return the owned part of values that rank 0 has in the mesh's order. Collective."""
        if self.comm.rank == 0:
            assert ordered is not None
            whole = np.ascontiguousarray(ordered, dtype=np.float64)
        else:
            whole = np.empty(self.size)
        self.comm.Bcast(whole)
        return whole[self.owned]


def write(path: Path, nodes: NodeOrder, fields: Mapping[str, NDArray], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of the one before it. Collective.

    Whenever the process is killed, `path` is either the old file or the new one, complete: the new one is written
    beside it, flushed to the disk, and renamed.

    Args:
        path: ends in .npz.
        nodes: order of the nodes.
        fields: owned nodal values by name.
        meta: what else belongs to the state, as JSON.

    Raises:
        AnalogError: on every rank, if it cannot be written.
    """
    ordered = {name: nodes.gather(values) for name, values in fields.items()}

    def save() -> None:
        beside = path.with_name(path.name + ".partial")
        text = json.dumps({"format": FORMAT, "fields": sorted(ordered), **meta})
        arrays: dict[str, Any] = {_META: np.array(text), **ordered}
        try:
            with beside.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except OSError as problem:
            raise InvalidInput("-checkpoint", str(path), "a file that can be written", f"{problem.strerror}.") from None

    on_root(nodes.comm, save)


def read_meta(comm: MPI.Comm, path: Path) -> dict[str, Any]:
    """Return what belongs to a checkpoint beside its fields. Collective.

    Raises:
        InvalidInput: on every rank: no such file, or none of ours.
    """

    def load() -> dict[str, Any]:
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                meta = json.loads(str(file[_META]))
        except FileNotFoundError:
            begun = path.with_name(path.name + ".partial").exists()
            raise InvalidInput("checkpoint", str(path), "a file that exists", "The first was not finished: begin anew."
                               if begun else "Write one with -checkpoint N.") from None
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as problem:
            raise InvalidInput("checkpoint", str(path), f"a whole file of the form {FORMAT} ({problem})",
                               _REMEDY) from None
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise InvalidInput("checkpoint", str(path), f"a file of the form {FORMAT}", "It is of another program or "
                               f"another version of this one. {_REMEDY}")
        return meta

    return on_root(comm, load)


def digest(comm: MPI.Comm, path: Path) -> str:
    """Return a hash of a file's contents, '' if it cannot be read. Collective."""
    def local() -> str:
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return ""

    return on_root(comm, local)


def solver_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return those of PETSc's options that the numbers of a run depend on."""
    return {name: text for name, text in sorted(options.items())
            if any(part in name for part in ("ksp_", "pc_", "analog")) and not _SHOWS.search(name)}


def other_solves(meta: Mapping[str, Any], ranks: int, options: Mapping[str, str]) -> list[str]:
    """Return in words what makes the solves of a run others than those that a checkpoint comes from.

    Args:
        meta: of the checkpoint; `ranks` and `options` are those that wrote it.
        ranks, options: of the run.
    """
    before, now = meta["options"], solver_options(options)
    changed = [f"ranks: {meta['ranks']} → {ranks}"] if meta["ranks"] != ranks else []
    return changed + [f"-{name}: {before.get(name, 'default')} → {now.get(name, 'default')}"
                      for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def read(path: Path, nodes: NodeOrder, *, finer: bool = False) -> dict[str, NDArray]:
    """Return the fields of a checkpoint, owned values by name, bit for bit as they were written. Collective.

    Args:
        path: the file.
        nodes: the order of the nodes.
        finer: it may be of a finer mesh, whose first nodes are those of this one: what it has at these.

    Raises:
        InvalidInput: on every rank: it cannot be read, is not whole, has values that are no numbers, or belongs to
            another mesh.
    """

    def load() -> dict[str, NDArray]:
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                fields = {name: file[name] for name in file.files if name != _META}
                names = json.loads(str(file[_META]))["fields"]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as problem:
            raise InvalidInput("checkpoint", str(path), f"a whole file ({problem})", _REMEDY) from None
        if sorted(fields) != names:
            raise InvalidInput("checkpoint", f"{path} with the fields {', '.join(sorted(fields))}", ", ".join(names),
                               _REMEDY)
        for name, values in fields.items():
            if finer and values.ndim == 1:
                values = fields[name] = values[: nodes.size]
            if values.shape != (nodes.size,):
                raise InvalidInput(f"checkpoint {path}, field {name}", values.shape, f"({nodes.size},)",
                                   f"It was made on another mesh. {_REMEDY}")
            if not np.isfinite(values).all():
                raise InvalidInput(f"checkpoint {path}, field {name}", "values that are no numbers", "finite values",
                                   _REMEDY)
        return fields

    fields: dict[str, NDArray] = {}

    def keep() -> list[str]:
        fields.update(load())
        return list(fields)

    names = on_root(nodes.comm, keep)
    return {name: nodes.scatter(fields.get(name)) for name in names}
