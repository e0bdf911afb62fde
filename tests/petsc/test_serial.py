"""The solver without PETSc and PC analog are one machine: same patches, same levels, same noise."""

import numpy as np
import pytest
import scipy.sparse as sp

import analogpde
import analogpde.petsc
from analogpde.petsc.stack import PETSc


def laplacian(n):
    """Five-point stencil on n × n points."""
    line = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    return sp.csr_array(sp.kron(line, sp.eye_array(n)) + sp.kron(sp.eye_array(n), line))


@pytest.mark.parametrize(("how", "options"), [
    ({}, {}),
    ({"levels": 1}, {"pc_analog_levels": "1"}),
    ({"blockamc": 1}, {"analog_blockamc": "1"}),
])
def test_one_application_agrees(how, options):
    """Both sum the sparse products in the same order or nearly so: FP64 rounding, and, where it moves a value across a
    boundary of a converter's code, one code of one line."""
    a = laplacian(30)
    chip = analogpde.load_chip("rram128").replace(tile_size=64)
    r = np.random.default_rng(1).standard_normal(900)
    ours = analogpde.program(a, chip=chip, **how).correct(r)

    database = PETSc.Options()
    values = {"pc_analog_rank_unknowns": "0", "analog_tile_size": "64", **options}
    for name, value in values.items():
        database.setValue(name, value)
    matrix = PETSc.Mat().createAIJ(size=a.shape, csr=(a.indptr, a.indices, a.data), comm=PETSc.COMM_SELF)
    pc = PETSc.PC().create(comm=PETSc.COMM_SELF)
    pc.setType("analog")
    pc.setOperators(matrix)
    pc.setFromOptions()
    pc.setUp()
    for name in values:
        database.delValue(name)
    x, y = matrix.createVecs()
    x.array[:] = r
    pc.apply(x, y)
    theirs = y.array.copy()
    for thing in (pc, matrix, x, y):
        thing.destroy()
    assert np.linalg.norm(ours - theirs) <= 0.01 * np.linalg.norm(theirs)
