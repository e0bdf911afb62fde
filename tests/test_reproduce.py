"""The scripts that repeat published experiments: their parts are what they say, and their main findings hold."""

from pathlib import Path

import numpy as np
import published
import pytest
import reproduce_pku2025 as pku
import reproduce_refinement as refinement

from analogpde import load_chip

ROOT = Path(__file__).parents[1]


def test_nearest_levels_are_multiples_of_each_arrays_step():
    a = pku.spectrum(3, 8, 10.0, np.random.default_rng(0))
    held = published.nearest_levels(a, 7, 8)
    step = np.abs(a).max(axis=(1, 2), keepdims=True) / 7
    assert np.allclose(held / step, np.rint(held / step), atol=1e-12)
    assert (np.abs(held - a) <= step / 2 * (1 + 1e-12)).all()
    halved = published.nearest_levels(a, 7, 4)
    quarter = a[:, :4, 4:]
    step = np.abs(quarter).max(axis=(1, 2), keepdims=True) / 7
    assert np.allclose(halved[:, :4, 4:], np.rint(quarter / step) * step, atol=1e-12)
    # the Schur complement of what is held is on levels of its own
    schur = halved[:, 4:, 4:] - halved[:, 4:, :4] @ np.linalg.solve(halved[:, :4, :4], halved[:, :4, 4:])
    step = np.abs(a[:, 4:, 4:] - halved[:, 4:, :4] @ np.linalg.solve(halved[:, :4, :4], halved[:, :4, 4:])).max(
        axis=(1, 2), keepdims=True) / 7
    assert np.allclose(schur / step, np.rint(schur / step), atol=1e-9)


def test_fixed_point_keeps_its_bits():
    values = np.array([[1.0, 0.3, -0.7], [8.0, 0.3, -5.0]])
    assert np.array_equal(published.fixed_point(values, None), values)
    for bits in (3, 12):
        error = np.abs(published.fixed_point(values, bits) - values)
        assert (error <= np.array([[1.0], [8.0]]) * 2.0**-bits / 2).all()


def test_neighbouring_amplitudes_differ_by_one_bit():
    sent = np.arange(15)
    assert pku.bit_errors(sent, pku.LEVELS[1:]) == 15
    assert pku.bit_errors(np.arange(16), pku.LEVELS) == 0
    assert pku.bit_errors(np.array([15]), np.array([99.0])) == 0  # beyond the outermost: the outermost


def test_the_published_loop_reaches_the_floor_of_its_residual():
    """A residual of 12 bits at condition 8 leaves at most about κ·2⁻¹² = 2e-3."""
    rng = np.random.default_rng(1)
    chip = load_chip("pku2025").replace(tile_size=8)
    run = pku.convergence("", pku.spectrum(20, 4, 8.0, rng), chip, bits=12, rule="published")
    assert 2.0**-14 < run.median[10] < 8 * 2.0**-12
    assert 2.0 < run.bits < 4.0


def test_two_slices_gain_the_published_rate_at_16():
    rng = np.random.default_rng(1)
    chip = load_chip("pku2025").replace(tile_size=8)
    run = pku.convergence("", pku.spectrum(10, 16, 8.0, rng), chip, bits=24, rule="ours", slices=2)
    assert run.median[10] < 1e-6
    assert run.bits > 2.0


def test_detection_by_an_ideal_chip_is_fp32s():
    chip = load_chip("ideal").replace(tile_size=8)
    rates = pku.detection(16, 4, [18.0, 24.0], count=10, vectors=2, steps=2, chip=chip)
    assert rates["1 shot"] == rates["2 shots"] == rates["FP32"]
    assert rates["FP32"][0] > rates["FP32"][1] >= 0.0
    assert pku.shots_needed(rates, 0.0) == "1"


def test_the_rate_is_the_predicted_one():
    pairs = refinement.rates(3)
    assert len(pairs) > 10
    assert np.median(pairs[:, 1] / pairs[:, 0]) == pytest.approx(1.0, abs=0.1)


def test_cg_on_a_multiplier_claims_what_is_not_so_and_solve_does_not():
    rows = refinement.compare_cg(1)[:2]
    for row in rows:
        assert row["claims"] == 1
        assert row["cg"][0] > 0.05
        assert row["converged"] == 1
        assert row["ours"][0] <= 1e-8


def test_converters_differ_by_the_amplification_of_the_tile():
    """An error of the output is multiplied by A: by 8 times the size of x over that of b, ‖A⁻¹‖ ≤ 4.2, at most 33."""
    points = refinement.converter_errors(3)
    ratio = np.array([p[1] for p in points["ADC"]]) / np.array([p[1] for p in points["DAC"]])
    assert (ratio > 5.0).all()
    assert (ratio < 33.0).all()


def test_the_page_holds_the_tables():
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    for name in ("pku2025", "refinement"):
        body = page.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]
        assert body.count("\n|") > 5
