"""PC analog with patches and a last level larger than a tile, solved by BlockAMC, serially and under mpirun."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("chip", ["ideal", "pku2025", "rram128"])
@pytest.mark.parametrize("case", ["poisson", "space", "convection"])
def test_it_converges_about_as_with_tiles_of_that_size(solve, gallery, chip, case):
    from analogpde.petsc import session

    whole = {"poisson": gallery.poisson(30, 30), "space": gallery.poisson(9, 9, 9),
             "convection": gallery.convection(30, 2.0)}[case]
    for depth in (1, 2):
        large = solve(whole, analog_tile_size=16 << depth, analog_chip=chip)
        done = solve(whole, prefix=f"d{depth}_", analog_tile_size=16, analog_chip=chip, analog_blockamc=depth)
        done.assert_fp32()
        assert not done.analog.digital_parts
        assert [level.tiles for level in done.analog._levels] == [level.tiles for level in large.analog._levels]
        operations = session().solves[f"d{depth}_"].operations
        assert operations.inv_shots > 0 and operations.mvm_shots > 0
        # Block elimination of ideal tiles is the same solve. With errors its own are at most twice one tile's
        # (tests/tile/test_blockamc.py): one of the bits that an iteration wins of about 24; one more for the draws.
        bits = 24 / large.iterations
        limit = large.iterations if chip == "ideal" else large.iterations * bits / (bits - 1) + 1
        assert done.iterations <= limit


def test_patches_fill_what_blockamc_solves(solve, gallery):
    sizes = []
    for depth in (0, 1, 2):
        done = solve(gallery.poisson(30, 30), analog_tile_size=16, analog_blockamc=depth)
        smoother = done.analog._levels[0]
        largest = int(smoother.patches.size.max(initial=0))
        sizes.append(done.matrix.getComm().tompi4py().allreduce(largest, op=max))
        noun = "tiles" if depth == 0 else f"patches by BlockAMC on up to {4**depth} arrays"
        assert f"{smoother.tiles} {noun}" in repr(done.analog)
    assert sizes[0] <= 16 < sizes[1] <= 32 < sizes[2] <= 64


# ---- the last level -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "line", "digital"), [
    ({}, "BlockAMC on 16 arrays of 16", False),
    ({"pc_analog_coarse": "auto"}, "BlockAMC on 16 arrays of 16", False),
    ({"pc_analog_coarse": "blockamc"}, "BlockAMC on 16 arrays of 16", False),
    ({"pc_analog_coarse": "digital"}, "digital LU on every rank", True),
    ({"analog_tile_size": 32, "pc_analog_core": 8}, "BlockAMC on 4 arrays of 32", False),
    ({"analog_tile_size": 64, "pc_analog_core": 8}, "one tile", False),
    ({"analog_tile_size": 64, "pc_analog_core": 8, "pc_analog_coarse": "digital"}, "one tile", False),
    ({"analog_tile_size": 8}, "digital LU on every rank", True)])
def test_a_last_level_larger_than_a_tile(solve, gallery, capfd, given, line, digital):
    done = solve(gallery.poisson(20, 20), **{"analog_tile_size": 16, "pc_analog_levels": 2, **given})
    done.assert_fp32()
    assert f"{line}\n" in repr(done.analog)
    assert bool(done.analog.digital_parts) == digital
    if done.matrix.getComm().rank == 0:
        assert ("partly digital" in capfd.readouterr().err) == digital


def test_a_last_level_beyond_four_tiles_is_refused_where_tiles_are_asked_for(solve, gallery, cause):
    message = cause(solve, gallery.poisson(20, 20), analog_tile_size=8, pc_analog_levels=2, pc_analog_coarse="blockamc")
    assert "exceeds the 32 that BlockAMC solves on tiles of 8" in message
    assert "-pc_analog_levels" in message and "-pc_analog_coarse digital" in message


@pytest.mark.parametrize("asked", ["auto", "blockamc"])
def test_a_last_level_that_tiles_cannot_hold(PETSc, solve, gallery, capfd, cause, monkeypatch, asked):
    from analogpde.errors import ProgrammingFailed
    from analogpde.petsc import hierarchy

    program = hierarchy.program_blocks

    def failing(blocks, chip, *, depth, **how):
        if depth and blocks.count:  # on the one rank that drives it
            raise ProgrammingFailed("no stable circuit")
        return program(blocks, chip, depth=depth, **how)

    monkeypatch.setattr(hierarchy, "program_blocks", failing)
    given = {"analog_tile_size": 16, "pc_analog_levels": 2, "pc_analog_coarse": asked}
    if asked == "blockamc":
        assert "no stable circuit" in cause(solve, gallery.poisson(20, 20), **given)
        return
    done = solve(gallery.poisson(20, 20), **given)
    done.assert_fp32()
    assert done.analog.digital_parts
    if PETSc.COMM_WORLD.rank == 0:
        assert "the coarsest level goes to digital LU" in capfd.readouterr().err


def test_singular_and_unsymmetric_last_levels(PETSc, solve, gallery, distribute):
    solve(gallery.convection(20, 2.0), analog_tile_size=16, pc_analog_levels=2).assert_fp32()
    whole = gallery.neumann(20, 20)
    matrix = distribute(whole)
    matrix.setNullSpace(PETSc.NullSpace().create(constant=True, comm=matrix.getComm()))
    b = np.cos(np.pi * (np.arange(400) % 20 + 0.5) / 20)
    done = solve(whole, b, matrix=matrix, analog_tile_size=16, pc_analog_levels=2)
    assert done.reason > 0 and done.backward_error <= 2.0**-24
    assert "BlockAMC" in repr(done.analog)


# ---- contracts ------------------------------------------------------------------------------------------------------


def test_adjoint_identity_of_noise_free_tiles(solve, gallery):
    done = solve(gallery.convection(25, 2.0), analog_tile_size=16, analog_blockamc=1, pc_analog_levels=2,
                 analog_read_noise="none", analog_dac_bits="none", analog_adc_bits="none")
    assert done.reason > 0 and "BlockAMC on 16 arrays" in repr(done.analog)
    pc = done.ksp.getPC()
    x, y = done.matrix.createVecs()
    begin, end = x.getOwnershipRange()
    values = np.random.default_rng(0).normal(size=(2, done.matrix.getSize()[0]))
    x.array[:], y.array[:] = values[0, begin:end], values[1, begin:end]
    bx, bty = x.duplicate(), y.duplicate()
    pc.apply(x, bx)
    pc.applyTranspose(y, bty)
    # in float32, see test_transposed.py
    assert abs(bx.dot(y) - x.dot(bty)) <= 1e-5 * (bx.norm() * y.norm() + x.norm() * bty.norm())
    assert abs(bx.dot(y)) > 1e-4 * bx.norm() * y.norm()


def test_a_solve_repeats_itself_and_seeds_differ(solve, gallery):
    given = {"analog_tile_size": 16, "analog_blockamc": 1, "analog_chip": "pku2025"}
    x = solve(gallery.poisson(20, 20), **given).x
    assert np.array_equal(x, solve(gallery.poisson(20, 20), **given).x)
    assert not np.array_equal(x, solve(gallery.poisson(20, 20), **given, analog_seed=1).x)


@pytest.mark.parametrize("depth", [1, 2])
def test_an_indefinite_matrix_is_refused_or_solved(solve, gallery, depth):
    import scipy.sparse as sp

    whole = gallery.poisson(20, 20) - 2.0 * sp.eye_array(400)
    try:
        done = solve(whole, analog_tile_size=16, analog_blockamc=depth, ksp_max_it=60)
    except Exception:
        return  # by the set-up, on all ranks
    assert done.reason < 0 or done.forward_error() <= 1e-6


@pytest.mark.parametrize(("name", "value"), [("analog_blockamc", 3), ("analog_blockamc", "one"),
                                             ("pc_analog_coarse", "lu")])
def test_wrong_values_are_refused(solve, gallery, cause, name, value):
    assert f"-{name}: got '{value}'; allowed" in cause(solve, gallery.poisson(8, 8), **{name: value})
