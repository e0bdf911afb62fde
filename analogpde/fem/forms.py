"""Small steps between UFL forms and PETSc: assembly, Dirichlet rows, integrals, point values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ufl
from dolfinx import fem, geometry
from dolfinx.fem import petsc as fem_petsc
from dolfinx.mesh import Mesh
from mpi4py import MPI
from numpy.typing import ArrayLike, NDArray
from petsc4py import PETSc

Point = NDArray  # coordinates (3, count), as DOLFINx passes them to interpolation


def matrix(form: ufl.Form) -> PETSc.Mat:
    """Assemble a bilinear form, boundary conditions apart. Collective."""
    assembled = fem_petsc.assemble_matrix(fem.form(form))
    assembled.assemble()
    return assembled


def zero_vector(space: fem.FunctionSpace) -> PETSc.Vec:
    """Return a vector for `space` with places for ghosts, as assembly needs it, and duplicates have it."""
    return fem_petsc.create_vector(space)


def vector(form: fem.Form | ufl.Form, into: PETSc.Vec | None = None) -> PETSc.Vec:
    """Assemble a linear form, into a new vector or into `into`, which `zero_vector` made. Collective."""
    compiled = form if isinstance(form, fem.Form) else fem.form(form)
    if into is None:
        into = zero_vector(compiled.function_spaces[0])
    with into.localForm() as local:
        numbers = compiled.function_spaces[0].dofmap.index_map
        if not local.handle or local.size != numbers.size_local + numbers.num_ghosts:
            # DOLFINx would write behind its end.
            raise ValueError("the vector has no place for ghosts: make it with zero_vector")
        local.set(0.0)
    fem_petsc.assemble_vector(into, compiled)  # type: ignore[arg-type]  # its stub knows one of two overloads
    into.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
    return into


def integral(comm: MPI.Comm, form: fem.Form | ufl.Form) -> float:
    """Return the value of a form without arguments, summed over ranks. Collective."""
    compiled = form if isinstance(form, fem.Form) else fem.form(form)
    return float(comm.allreduce(fem.assemble_scalar(compiled), MPI.SUM))


def mean_diagonal(A: PETSc.Mat) -> float:
    """Return the mean of the diagonal: the natural size of a row that says u_i = g_i. Collective.

    With ones there instead, a residual norm would be all boundary (or none of it), as the mesh is refined.
    """
    diagonal = A.getDiagonal()
    mean = diagonal.sum() / diagonal.size
    diagonal.destroy()
    return float(mean)


class Dirichlet:
    """Prescribed values on some of the unknowns.

    Args:
        space: a Lagrange space.
        facets: boundary facets (local numbers) with prescribed values.
        value: maps coordinates (3, count) and a time in s to the values (count,); None: zero.
    """

    def __init__(
        self, space: fem.FunctionSpace, facets: NDArray, value: Callable[[Point, float], ArrayLike] | None = None
    ) -> None:
        mesh = space.mesh
        dimension = mesh.topology.dim - 1
        mesh.topology.create_connectivity(dimension, dimension + 1)
        local = fem.locate_dofs_topological(space, dimension, facets)
        owned = space.dofmap.index_map.size_local
        self.rows = local[local < owned]
        """Constrained unknowns owned by this rank, local numbers."""
        self.global_rows = space.dofmap.index_map.local_to_global(self.rows).astype(np.int32)
        self._points = space.tabulate_dof_coordinates()[self.rows].T
        self._value = value
        self.diagonal = 1.0

    @property
    def homogeneous(self) -> bool:
        """Whether all prescribed values are zero at all times."""
        return self._value is None

    def values(self, time: float) -> NDArray:
        """Return the prescribed values at `time`, in the order of `rows`."""
        if self._value is None:
            return np.zeros(len(self.rows))
        return np.broadcast_to(np.asarray(self._value(self._points, time), dtype=float), (len(self.rows),))

    def put(self, x: PETSc.Vec, time: float) -> None:
        """Write the prescribed values at `time` into `x`; other entries stay."""
        x.array[self.rows] = self.values(time)

    def constrain(self, A: PETSc.Mat) -> None:
        """Replace the constrained rows and columns of A by a diagonal, symmetrically. Collective."""
        self.diagonal = mean_diagonal(A)
        A.zeroRowsColumns(self.global_rows, diag=self.diagonal)

    def lift(self, b: PETSc.Vec, terms: Sequence[tuple[float, PETSc.Mat]], time: float) -> None:
        """Move the prescribed values of Σ c·A to the right-hand side. Collective.

        Args:
            b: right-hand side of the unconstrained system, changed in place.
            terms: factors and unconstrained matrices that make up the system's matrix.
            time: time of the prescribed values in s.
        """
        if not self.homogeneous:
            extension, product = b.duplicate(), b.duplicate()
            extension.set(0.0)
            self.put(extension, time)
            for factor, A in terms:
                A.mult(extension, product)
                b.axpy(-factor, product)
            extension.destroy()
            product.destroy()
        b.array[self.rows] = self.diagonal * self.values(time)


def point_value(function: fem.Function, point: Sequence[float]) -> float:
    """Return the value of a scalar function at a point of the (possibly distributed) mesh. Collective.

    Args:
        function: a scalar function.
        point: coordinates in m, one to three of them.

    Raises:
        ValueError: on every rank, if no cell contains the point.
    """
    mesh: Mesh = function.function_space.mesh
    where = np.zeros((1, 3))
    where[0, : len(point)] = point
    tree = geometry.bb_tree(mesh, mesh.topology.dim, padding=1e-12)
    near = geometry.compute_collisions_points(tree, where)
    cells = geometry.compute_colliding_cells(mesh, near, where).links(0)
    local = float(np.ravel(function.eval(where, cells[:1]))[0]) if len(cells) else None
    found: list[Any] = [value for value in mesh.comm.allgather(local) if value is not None]
    if not found:
        raise ValueError(f"no cell contains the point {tuple(point)}")
    return float(found[0])


def l2_norm(comm: MPI.Comm, expression: Any, measure: ufl.Measure) -> float:
    """Return the L2 norm of a scalar expression. Collective."""
    return float(np.sqrt(integral(comm, ufl.inner(expression, expression) * measure)))
