"""What fails on one rank only ends on all of them in the same way, and the solver can be used again."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.mpi

PC_FAILED = -11


@pytest.fixture
def break_tiles(PETSc, monkeypatch):
    """A function that lets the tiles of one level fail on one rank, in their first shot from now on."""

    def arrange(analog, level, rank):
        if PETSc.COMM_WORLD.rank != rank:
            return
        bank = analog._levels[level].bank
        shoot, left = bank.shoot, [1]

        def broken(*arguments, **keywords):
            if left:
                left.pop()
                raise ValueError("the amplifiers are on fire")
            return shoot(*arguments, **keywords)

        monkeypatch.setattr(bank, "shoot", broken)

    return arrange


def ranks_with_tiles(level, size):
    """The coarsest tile is driven by rank 0."""
    return range(size) if level == 0 else [0]


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("kind", ["analog", "fgmres", "gcr", "richardson", "bcgs"])
def test_a_shot_that_fails_on_one_rank(PETSc, solve, gallery, break_tiles, kind, level, capsys):
    for rank in ranks_with_tiles(level, PETSc.COMM_WORLD.size):
        done = solve(gallery.poisson(20, 20), ksp_type=kind, pc_type="analog", ksp_rtol=1e-8, ksp_max_it=100,
                     ksp_norm_type="preconditioned" if kind == "bcgs" else "unpreconditioned",
                     analog_chip="ideal" if kind == "bcgs" else "rram128")  # bcgs cannot live with noise
        assert done.reason > 0
        break_tiles(done.analog, level, rank)
        done.ksp.solve(done.rhs, done.solution)
        assert PETSc.COMM_WORLD.tompi4py().allgather(done.reason) == [PC_FAILED] * PETSc.COMM_WORLD.size
        said = capsys.readouterr().err
        assert (f"analogpde: rank {rank}: ValueError: the amplifiers are on fire" in said) == (
            PETSc.COMM_WORLD.rank == rank)
        done.ksp.solve(done.rhs, done.solution)  # the fault has passed
        assert done.reason > 0


@pytest.mark.parametrize("given", [{"pc_analog_levels": 1}, {"ksp_analog_accelerator": "none"},
                                   {"ksp_analog_accelerator": "fgmres"}])
def test_the_accelerators_end_alike_and_keep_the_last_good_solution(PETSc, solve, gallery, break_tiles, given):
    done = solve(gallery.poisson(20, 20), ksp_rtol=1e-8, **given)
    done.ksp.setTolerances(rtol=1e-12)
    done.ksp.setInitialGuessNonzero(True)
    break_tiles(done.analog, 0, PETSc.COMM_WORLD.size - 1)
    before = done.x.copy()
    done.ksp.solve(done.rhs, done.solution)
    assert done.reason == PC_FAILED
    done.__dict__.pop("x")
    assert np.array_equal(done.x, before)
    assert done.ksp.getPC().getFailedReason() == PETSc.PC.FailedReason.NOERROR


@pytest.mark.parametrize("norm", ["unpreconditioned", "none"])
def test_a_failure_deep_inside(PETSc, solve, gallery, break_tiles, norm):
    # tiles of an inner KSP analog of an outer one
    done = solve(gallery.poisson(20, 20), pc_type="ksp", ksp_ksp_type="analog", ksp_ksp_rtol=1e-1, ksp_ksp_max_it=3,
                 ksp_ksp_norm_type=norm)
    assert done.reason > 0
    break_tiles(done.ksp.getPC().getKSP().getPC().getPythonContext(), 0, PETSc.COMM_WORLD.size - 1)
    done.ksp.solve(done.rhs, done.solution)
    assert done.reason == PC_FAILED
    done.ksp.solve(done.rhs, done.solution)
    assert done.reason > 0


@pytest.mark.parametrize("name", ["program_blocks", "make_patches", "smooth"])
def test_a_set_up_that_fails_on_one_rank(PETSc, solve, gallery, monkeypatch, cause, options, name):
    import analogpde.petsc.hierarchy as hierarchy
    import analogpde.petsc.partition as partition
    from analogpde.errors import ProgrammingFailed

    culprit = PETSc.COMM_WORLD.size - 1
    with monkeypatch.context() as patch:
        if PETSc.COMM_WORLD.rank == culprit:
            def broken(*arguments, **keywords):
                raise ProgrammingFailed("the cells are worn out")

            patch.setattr(partition if name == "make_patches" else hierarchy, name, broken)
        text = cause(solve, gallery.poisson(20, 20))
    there = PETSc.COMM_WORLD.rank == culprit
    assert text == ("the cells are worn out" if there else
                    f"rank {culprit}: ProgrammingFailed: the cells are worn out")
    options.delValue("ksp_type")
    solve(gallery.poisson(20, 20)).assert_fp32()


@pytest.mark.parametrize("pc", ["bjacobi", "asm"])
@pytest.mark.parametrize("outer", ["analog", "fgmres"])
def test_a_block_that_cannot_be_programmed_on_one_rank(PETSc, solve, gallery, monkeypatch, capsys, pc, outer):
    # here the other ranks cannot know: the failure must travel with the data
    import analogpde.petsc.hierarchy as hierarchy
    from analogpde.errors import ProgrammingFailed

    comm = PETSc.COMM_WORLD
    if comm.rank == comm.size - 1:
        def broken(*arguments, **keywords):
            raise ProgrammingFailed("the cells are worn out")

        monkeypatch.setattr(hierarchy, "program_blocks", broken)
    given = {"ksp_type": outer, "pc_type": pc, "sub_pc_type": "analog"}
    if comm.size == 1:
        with pytest.raises(PETSc.Error) as caught:
            solve(gallery.poisson(20, 20), **given)
        assert "worn out" in str(caught.value.__cause__)
        return
    done = solve(gallery.poisson(20, 20), **given)
    assert done.reason == PC_FAILED
    said = capsys.readouterr().err
    assert (f"analogpde: rank {comm.rank}: ProgrammingFailed: the cells are worn out" in said) == (
        comm.rank == comm.size - 1)


def test_a_monitor_that_raises_everywhere_leaves_as_the_programs_own_error(PETSc, solve, gallery):
    def monitor(ksp, iteration, norm):
        raise KeyError("mine")

    with pytest.raises(PETSc.Error) as caught:
        solve(gallery.poisson(12, 12), prepare=lambda ksp: ksp.setMonitor(monitor))
    chain = [caught.value]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    assert isinstance(chain[-1], KeyError)
