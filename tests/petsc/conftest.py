"""What the plugin's tests share: systems with known answers, a solve by options, nothing left behind.

Matrices live on COMM_WORLD, so that the same tests run serially and under mpirun. Every rank also holds the whole
system in SciPy, gathers the distributed answer and judges it by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as linalg

# Nothing here may import PETSc when pytest reads this file: the command line is still pytest's.


class Gallery:
    """Matrices, whole, on every rank."""

    @staticmethod
    def poisson(*cells: int) -> sp.csr_matrix:
        """Finite differences of −Δ with Dirichlet borders, 2·dim on the diagonal."""
        whole = sp.csr_matrix((1, 1))
        for n in cells:
            line = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
            whole = sp.kron(whole, sp.eye_array(n)) + sp.kron(sp.eye_array(whole.shape[0]), line)
        return sp.csr_matrix(whole)

    @staticmethod
    def neumann(*cells: int) -> sp.csr_matrix:
        """The same with Neumann borders: singular, constants are its null space, row sums are exactly zero."""
        whole = sp.csr_matrix((1, 1))
        for n in cells:
            ends = np.where((np.arange(n) == 0) | (np.arange(n) == n - 1), 1.0, 2.0)
            line = sp.diags_array([-np.ones(n - 1), ends, -np.ones(n - 1)], offsets=[-1, 0, 1])
            whole = sp.kron(whole, sp.eye_array(n)) + sp.kron(sp.eye_array(whole.shape[0]), line)
        return sp.csr_matrix(whole)

    @staticmethod
    def convection(n: int, peclet: float) -> sp.csr_matrix:
        """−Δu + (peclet/h) (1, ½)·∇u on n × n unknowns, upwind: an unsymmetric M-matrix."""
        upwind = sp.diags_array([-np.ones(n - 1), np.ones(n)], offsets=[-1, 0])
        wind = sp.kron(sp.eye_array(n), upwind) + 0.5 * sp.kron(upwind, sp.eye_array(n))
        return sp.csr_matrix(Gallery.poisson(n, n) + peclet * wind)

    @staticmethod
    def mass(n: int) -> sp.csr_matrix:
        """Bilinear mass matrix on n × n nodes: symmetric definite, κ ≈ 9, all entries positive."""
        line = sp.diags_array([np.ones(n - 1), 4 * np.ones(n), np.ones(n - 1)], offsets=[-1, 0, 1]) / 6
        return sp.csr_matrix(sp.kron(line, line))

    @staticmethod
    def elasticity(n: int, clamped: bool = True) -> tuple[sp.csr_matrix, np.ndarray]:
        """Plane strain, ν = 0.3, bilinear elements on n × n cells, two unknowns a node; and its rigid-body modes.

        Clamped on the left side, where the rows are those of a diagonal of the same size as the others.
        """
        lame, mu = 0.3 / (1.3 * 0.4), 1 / 2.6
        law = np.array([[lame + 2 * mu, lame, 0], [lame, lame + 2 * mu, 0], [0, 0, mu]])
        stiffness = np.zeros((8, 8))
        corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        for gauss in np.array([[a, b] for a in (-1, 1) for b in (-1, 1)]) / np.sqrt(3):
            slope = corner * (1 + corner[:, ::-1] * gauss[::-1]) / 2  # 1/4, times 2 for cells of unit width
            strain = np.zeros((3, 8))
            strain[0, 0::2], strain[1, 1::2] = slope[:, 0], slope[:, 1]
            strain[2, 0::2], strain[2, 1::2] = slope[:, 1], slope[:, 0]
            stiffness += strain.T @ law @ strain / 4
        x, y = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
        around = [(x + a) * (n + 1) + y + b for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        corners = np.stack(around, axis=-1).reshape(-1, 4)
        unknowns = (2 * corners[:, :, None] + np.arange(2)).reshape(-1, 8)
        size = 2 * (n + 1) ** 2
        rows, cols = np.repeat(unknowns, 8, axis=1).ravel(), np.tile(unknowns, 8).ravel()
        whole = sp.csr_matrix((np.tile(stiffness.ravel(), n * n), (rows, cols)), shape=(size, size))
        if clamped:
            free = np.ones(size)
            free[: 2 * (n + 1)] = 0.0
            whole = sp.diags_array(free) @ whole @ sp.diags_array(free) + sp.diags_array(1 - free)
        axes = np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij")
        place = np.stack([axis.ravel() for axis in axes], 1)
        modes = np.zeros((size, 3))
        modes[0::2, 0] = modes[1::2, 1] = 1.0
        modes[0::2, 2], modes[1::2, 2] = -place[:, 1], place[:, 0]
        return sp.csr_matrix(whole), modes

    @staticmethod
    def saddle(n: int) -> sp.csr_matrix:
        """A Stokes-like matrix with a zero block on its diagonal."""
        b = sp.random_array((max(1, n // 4), n * n), density=0.2, rng=np.random.default_rng(3))
        return sp.csr_matrix(sp.block_array([[Gallery.poisson(n, n), b.T], [b, None]]))


def smooth(n: int) -> np.ndarray:
    """A right-hand side without symmetry."""
    return np.sin(0.1 * np.arange(n)) + 1.0


@dataclass
class Solved:
    """One KSPSolve and what can be said of it."""

    ksp: Any
    matrix: Any
    rhs: Any
    solution: Any
    whole: sp.csr_matrix | None
    b: np.ndarray

    @cached_property
    def x(self) -> np.ndarray:
        """The solution, whole."""
        comm = self.matrix.getComm().tompi4py()
        return np.concatenate(comm.allgather(self.solution.array_r.copy()))

    @property
    def reason(self) -> int:
        return int(self.ksp.getConvergedReason())

    @property
    def iterations(self) -> int:
        return int(self.ksp.getIterationNumber())

    @property
    def analog(self) -> Any:
        """The context of the PC analog."""
        assert self.ksp.getPC().getType() == "analog"
        return self.ksp.getPC().getPythonContext()

    @cached_property
    def residual(self) -> np.ndarray:
        return self.b - self.whole @ self.x

    @property
    def relative_residual(self) -> float:
        return float(np.linalg.norm(self.residual) / np.linalg.norm(self.b))

    @property
    def backward_error(self) -> float:
        """‖b − A x‖/(‖A‖ ‖x‖ + ‖b‖) with the largest row's norm for ‖A‖₂, which is below it: a stricter test."""
        norm = float(np.sqrt(self.whole.multiply(self.whole).sum(axis=1).max()))
        return float(np.linalg.norm(self.residual) / (norm * np.linalg.norm(self.x) + np.linalg.norm(self.b)))

    def forward_error(self, x: np.ndarray | None = None) -> float:
        """‖x − x₆₄‖₂/‖x₆₄‖₂ against a direct FP64 solve, of this answer or another one."""
        exact = linalg.splu(self.whole.tocsc()).solve(self.b)
        return float(np.linalg.norm((self.x if x is None else x) - exact) / np.linalg.norm(exact))

    def native_fp32(self) -> np.ndarray:
        """The same system factorised and solved in float32."""
        return linalg.splu(self.whole.tocsc().astype(np.float32)).solve(self.b.astype(np.float32)).astype(np.float64)

    def assert_fp32(self) -> None:
        """Assert the FP32-equivalent target: the three limits of the design, not what the solver estimates."""
        assert self.reason > 0
        assert self.forward_error() <= 2.0**-23
        # float32 cannot even hold x better than to 2^-26 of it, save for numbers that it happens to hold exactly
        assert self.forward_error() <= max(2.0**-26, self.forward_error(self.native_fp32()))
        assert self.backward_error <= 2.0**-24


@pytest.fixture(scope="session")
def gallery() -> type[Gallery]:
    return Gallery


@pytest.fixture(scope="session")
def PETSc() -> Any:
    """petsc4py.PETSc with our types registered."""
    stack = pytest.importorskip("analogpde.petsc.stack", reason="needs PETSc and MPI", exc_type=ImportError)
    import analogpde.petsc  # noqa: F401 - registers

    return stack.PETSc


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give each test a session of its own; restore the options database and free what is left. Collective."""
    if "PETSc" not in request.fixturenames:
        yield
        return
    PETSc = request.getfixturevalue("PETSc")
    monkeypatch = request.getfixturevalue("monkeypatch")
    from analogpde.petsc import log
    from analogpde.refine.record import SolveLog

    monkeypatch.setattr(log, "_session", SolveLog(ranks=PETSc.COMM_WORLD.size))
    options = PETSc.Options()
    before = options.getAll()
    yield
    for name in options.getAll():
        if name not in before:
            options.delValue(name)
    assert options.getAll() == before
    PETSc.garbage_cleanup(PETSc.COMM_WORLD)


@pytest.fixture
def options(PETSc: Any) -> Any:
    """The options database; whatever is put there is gone after the test."""
    return PETSc.Options()


@pytest.fixture(scope="session")
def distribute(PETSc: Any) -> Callable[..., Any]:
    """A maker of PETSc matrices (aij, on COMM_WORLD) from whole SciPy ones."""

    def make(whole: sp.spmatrix, rows: list[int] | None = None, comm: Any = None) -> Any:
        """Args: rows: how many each rank owns; None lets PETSc decide."""
        comm = comm or PETSc.COMM_WORLD
        whole = sp.csr_matrix(whole)
        layout = []
        for axis in (0, 1):
            size = whole.shape[axis]
            mine = rows[comm.rank] if rows else size // comm.size + (comm.rank < size % comm.size)
            layout.append((mine, size))
        mine = layout[0][0]
        first = sum(comm.tompi4py().allgather(mine)[: comm.rank])
        part = whole[first : first + mine]
        part.sort_indices()
        csr = (part.indptr.astype(PETSc.IntType), part.indices.astype(PETSc.IntType), part.data.astype(float))
        matrix = PETSc.Mat().createAIJ(size=layout, csr=csr, comm=comm)
        matrix.assemble()
        return matrix

    return make


@pytest.fixture
def blocks(PETSc: Any, comm: Any, distribute: Callable[..., Any]) -> Callable[..., Any]:
    """A maker of PETSc matrices with a block size and near-null vectors."""

    def make(whole: sp.spmatrix, block: int, modes: np.ndarray | None = None) -> Any:
        nodes = whole.shape[0] // block
        rows = [block * (nodes // comm.size + (rank < nodes % comm.size)) for rank in range(comm.size)]
        matrix = distribute(whole, rows)
        matrix.setBlockSize(block)
        if modes is not None:
            basis, _ = np.linalg.qr(modes)
            vectors = [matrix.createVecRight() for _ in basis.T]
            begin, end = matrix.getOwnershipRange()
            for vector, values in zip(vectors, basis.T, strict=True):
                vector.array[:] = values[begin:end]
            matrix.setNearNullSpace(PETSc.NullSpace().create(vectors=vectors, comm=matrix.getComm()))
        return matrix

    return make


@pytest.fixture
def scatter() -> Callable[[Any, np.ndarray], Any]:
    """A maker of vectors that fit a matrix, from whole arrays."""

    def make(matrix: Any, values: np.ndarray) -> Any:
        vector = matrix.createVecLeft()
        begin, end = vector.getOwnershipRange()
        vector.array[:] = values[begin:end]
        return vector

    return make


@pytest.fixture
def solve(PETSc: Any, options: Any, distribute: Any, scatter: Any) -> Callable[..., Solved]:
    """A function that solves one system with options, as a program that knows nothing of us would."""

    def run(whole: Any, b: np.ndarray | None = None, *, matrix: Any = None, start: np.ndarray | None = None,
            prefix: str = "", prepare: Callable[[Any], None] | None = None, **given: Any) -> Solved:
        """Args:
            whole: the SciPy matrix; matrix: the PETSc one, if it is not simply that.
            start: initial guess. prepare: called with the KSP before the solve.
            given: options by name; None for one without a value.
        """
        matrix = distribute(whole) if matrix is None else matrix
        given = {"ksp_type": "analog", "ksp_max_it": 1000, **given}
        for name, value in given.items():
            options[prefix + name] = value
        ksp = PETSc.KSP().create(matrix.getComm())
        ksp.setOptionsPrefix(prefix)
        ksp.setOperators(matrix)
        ksp.setFromOptions()
        b = smooth(matrix.getSize()[0]) if b is None else b
        rhs = scatter(matrix, b)
        solution = matrix.createVecRight()
        if start is not None:
            begin, end = solution.getOwnershipRange()
            solution.array[:] = start[begin:end]
            ksp.setInitialGuessNonzero(True)
        if prepare is not None:
            prepare(ksp)
        ksp.solve(rhs, solution)
        for name in given:
            options.delValue(prefix + name)
        return Solved(ksp, matrix, rhs, solution, whole, b)

    return run


@pytest.fixture
def cause() -> Callable[..., str]:
    """A function that calls and returns our message: what PETSc.Error carries as its cause, on this rank."""

    def text(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        from analogpde.errors import AnalogError

        try:
            result = call(*args, **kwargs)
        except Exception as error:
            found: BaseException | None = error
            while found is not None and not isinstance(found, AnalogError):
                found = found.__cause__
            assert found is not None, f"no message of ours: {error!r}"
            return str(found)
        pytest.fail(f"no error; got {result!r}")

    return text


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs a script in a process of its own, serially or under mpirun, and gives up after a while."""

    def run(text: str, *arguments: str, ranks: int = 1, module: bool = False, seconds: float = 120) -> Any:
        """Args: module: run it as `python -m analogpde script`."""
        script = tmp_path / "script.py"
        script.write_text(text)
        command = [sys.executable, *(["-m", "analogpde"] if module else []), str(script), *arguments]
        if ranks > 1:
            launcher = Path(sys.executable).parent / "mpirun"
            command = [str(launcher) if launcher.exists() else "mpirun", "-n", str(ranks), *command]
        root = str(Path(__file__).parents[2])
        env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=seconds,
                              check=False)

    return run
