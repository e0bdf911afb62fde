"""The running estimate of the forward error: not below the truth where a solve may stop on it."""

import numpy as np
import pytest

from analogpde.refine.loop import make_accelerator, refine
from analogpde.refine.status import Status
from analogpde.refine.target import BACKWARD_ERROR, FORWARD_ERROR, FP32_RTOL, STOP_BACKWARD, STOP_FORWARD

RATES = [0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95]


def run(tools, matrix, correct, b, accelerator="none", stop=1e-10):
    """Refine; return pairs (estimate, true forward error) from step 1 on, until the truth is at `stop`."""
    exact = np.linalg.solve(matrix, b)
    _, _, history, iterates = tools.solve(tools.System(matrix, b, correct), accelerator, rtol=stop, stagnation=100)
    size = np.linalg.norm(exact)
    assert history[0].forward_estimate == np.inf
    pairs = [(p.forward_estimate * p.solution_norm / size, np.linalg.norm(x - exact) / size)
             for p, x in zip(history[1:], iterates[1:], strict=True)]
    return [pair for pair in pairs if pair[1] > 1e-12]


@pytest.mark.parametrize("sign", [1, -1], ids=["monotone", "alternating"])
@pytest.mark.parametrize("rate", RATES)
def test_one_contraction_rate(tools, rate, sign):
    # e_k = ±ρ e_{k−1}: with the true ρ the bound ρ/(1−ρ)‖step‖ is sharp when monotone (rounding of three norms: 1e-9)
    matrix, b = tools.spd(20, 30.0), tools.right_hand_side(20)
    pairs = run(tools, matrix, (1 - sign * rate) * np.linalg.inv(matrix), b)
    assert len(pairs) > 5
    for estimate, error in pairs:
        assert estimate >= error * (1 - 1e-5) - 1e-14
        # and not far above: ‖step‖ ≤ (1+ρ)/ρ ‖e_k‖; ρ is taken as at least 0.1, in the bounds of four steps
        assert estimate <= error * (1 + rate) / (1 - rate) * max(1.0, 0.1 / rate) ** 4 * 1.3


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mixed_contraction_rates(tools, rate, seed):
    # Modes that contract at rates up to ρ, all present from the start. The fast ones hide the slow ones at first, so
    # the estimate may be below the truth, by no more than the factor 8 that the target keeps in hand.
    rng = np.random.default_rng(seed)
    matrix = tools.spd(30, 100.0, seed=seed)
    values, vectors = np.linalg.eigh(matrix)
    rates = rate * rng.uniform(-1, 1, size=30)
    rates[rng.integers(30)] = rate
    correct = vectors @ np.diag((1 - rates) / values) @ vectors.T
    pairs = run(tools, matrix, correct, tools.right_hand_side(30, seed=seed))
    assert len(pairs) > 5
    for estimate, error in pairs:
        assert estimate >= error / 8
    late = pairs[2 * len(pairs) // 3:]
    for estimate, error in late:  # once the slow mode is left it is a bound again, up to a tenth
        assert estimate >= 0.9 * error


@pytest.mark.parametrize("known", [True, False])
def test_a_known_slow_mode_is_asked_for(tools, known):
    # The corrections have nothing of one mode with eigenvalue 1e-6, b a billionth of it: an error of 1e-3 that steps
    # and residuals, which fall by ten a step until 1e-9 is left, do not show.
    matrix = tools.spd(30, 10.0)
    values, vectors = np.linalg.eigh(matrix)
    matrix += (1e-6 - values[0]) * np.outer(vectors[:, 0], vectors[:, 0])
    correct = 0.9 * (vectors[:, 1:] / values[1:]) @ vectors[:, 1:].T
    b = vectors[:, 1:] @ np.ones(29) + 1e-9 * vectors[:, 0]
    system = tools.System(matrix, b, correct)
    system.slow = vectors[:, 0] if known else None
    _, x, history, _ = tools.solve(system, steps=8)
    error = np.linalg.norm(x - np.linalg.solve(matrix, b))
    assert error == pytest.approx(1e-3, rel=1e-4)  # the share of b over the eigenvalue; 1e-10 of rounding over 1e-6
    last = history[-1]
    if known:
        assert last.forward_estimate * last.solution_norm >= 0.999 * error
        assert last.slow_estimate * last.solution_norm >= 0.999 * error
    else:
        assert last.forward_estimate * last.solution_norm < 1e-3 * error


def test_nothing_is_said_before_there_is_a_rate(tools):
    matrix, b = tools.poisson(4), tools.right_hand_side(16)
    _, _, history, _ = tools.solve(tools.System(matrix, b, 0.9 * np.linalg.inv(matrix)), steps=2)
    assert history[0].forward_estimate == np.inf
    assert 0 < history[1].forward_estimate < 1


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_no_contraction_no_estimate(tools, factor):
    # residuals constant or growing: the next estimate must not end a solve
    _, _, history, _ = tools.solve(tools.System(np.eye(4), np.ones(4), (1 + factor) * np.eye(4)), steps=5)
    assert all(p.forward_estimate == np.inf for p in history)


def test_a_step_of_zero_says_nothing_unless_the_residual_is_zero(tools):
    _, _, history, _ = tools.solve(tools.System(np.eye(4), np.ones(4), np.zeros((4, 4))), steps=3)
    assert all(p.forward_estimate == np.inf for p in history)
    _, _, history, _ = tools.solve(tools.System(np.eye(4), np.ones(4), np.eye(4)), steps=3)
    assert [p.forward_estimate for p in history[2:]] == [0.0, 0.0]


def test_one_lucky_step_does_not_end_a_solve(tools):
    # a residual that falls by 1e6 once is believed for a factor 10 only
    matrix, b = np.eye(4), np.ones(4)
    first = []

    def lucky(r):
        first.append(1)
        return (1 - 1e-6) * r if len(first) == 1 else 0.5 * r

    _, _, history, _ = tools.solve(tools.System(matrix, b, lucky), steps=1)
    assert history[1].forward_estimate == pytest.approx(0.1 / 0.9, rel=1e-5)


@pytest.mark.parametrize("condition", [10.0, 1e3, 1e5])
@pytest.mark.parametrize("error", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("accelerator", ["none", "fcg", "fgmres"])
def test_stopping_by_estimates_meets_the_target(tools, accelerator, noise, error, condition):
    # The rule of the FP32-equivalent target may fail to stop, but where it stops it is right: for corrections whose
    # error operator has eigenvalues in ±error, with noise of a fifth of each correction, all modes present.
    stopped = 0
    for seed in range(6):
        matrix, b = tools.spd(40, condition, seed=seed), tools.right_hand_side(40, seed)
        values, vectors = np.linalg.eigh(matrix)
        root = vectors / np.sqrt(values)
        correct = root @ (tools.spd(40, (1 + error) / (1 - error), seed=seed + 100) * (1 + error)) @ root.T
        rng = np.random.default_rng(seed)

        def noisy(r, correct=correct, rng=rng):
            d = correct @ r
            return d + noise * np.linalg.norm(d) / np.sqrt(40) * rng.normal(size=40)

        norm, x = np.linalg.norm(matrix, axis=1).max(), np.zeros(40)

        def test(p, norm=norm, b=b):
            backward = p.residual_norm / (norm * p.solution_norm + np.linalg.norm(b))
            done = backward <= STOP_BACKWARD and p.forward_estimate <= STOP_FORWARD
            return Status.CONVERGED_FP32 if done else None

        status = refine(tools.System(matrix, b, noisy), x, make_accelerator(accelerator, 40, 30), test=test,
                        stagnation=100, max_iterations=300)
        if status is Status.CONVERGED_FP32:
            stopped += 1
            exact = np.linalg.solve(matrix, b)
            assert np.linalg.norm(x - exact) <= FORWARD_ERROR * np.linalg.norm(exact)
    # where noise times the root of κ is below one every solve ends
    assert stopped == 6 or noise * np.sqrt(condition) > 1


def test_target_numbers():
    assert FORWARD_ERROR == 2.0**-23
    assert FP32_RTOL == BACKWARD_ERROR == 2.0**-24
    assert STOP_FORWARD == FORWARD_ERROR / 8
    assert STOP_BACKWARD == BACKWARD_ERROR / 8
