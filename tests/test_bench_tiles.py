"""The benchmark of the tiles: its cases are what they say, and agree with CrossSim's errors."""

import bench_tiles as bench
import numpy as np
import pytest


def test_digits_add_up():
    a, _ = bench.dense(1)
    whole = sum(8.0 ** (2 - s) * part for s, part in enumerate(bench.digits(a, 3, 3))) / 511.0
    assert np.abs(whole - a).max() <= 0.5 / 511.0 * (1 + 1e-12)
    assert all(np.abs(part).max() <= 7 for part in bench.digits(a, 3, 3))


def test_relative_errors_are_crosssims():
    """Within 3 %, as published figures of two digits and 2 % spread over 20 matrices allow, with ADCs as theirs."""
    calibrated, following = bench.peers_errors(1.0, 20), bench.peers_errors(None, 20)
    for name, error in calibrated.items():
        assert error == pytest.approx(bench.CROSSSIM_ERRORS[name], rel=0.03 + 0.02)
        assert following[name] < error


def test_many_tiles_have_memory_of_their_own():
    assert all(took > 0.1 for took in bench.bandwidth(6, part=3))  # µs: 64 kB are not read faster


def test_empty_tiles_are_not_programmed():
    """n = 2025 in tiles of 128: 16 on the diagonal, 15 beside it on either side hold anything."""
    _, tiles, error = bench.sparse_product()
    assert tiles == 16 + 2 * 15
    assert error < 0.1


def test_a_dead_array_and_a_wrong_target_would_show():
    a, x = bench.dense(2)
    products = bench.Products([bench.on_arrays(a, bench.machine(7, None, None))], [1.0], x)
    assert bench.relative_error(products, a, x) < 0.02  # 8 bits
    assert bench.relative_error(products, -a, x) > 1.0
