"""Random streams: the published generator, normal numbers, and keys that never meet."""

import numpy as np
import pytest
from scipy import special

from analogpde.tile.kernels import _quantile, fill_normal, philox
from analogpde.tile.noise import Purpose, normal, read_normal, stream

# Known answers of Philox4x32-10 that Random123 ships (tests/kat_vectors): counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]
COUNT = 200_000
# Bounds below are 5 standard deviations of the estimate: passed by 999 999 of 10^6 streams, and the streams are fixed.
SIGMAS = 5.0
WORD = stream(Purpose.READ)


both = pytest.mark.parametrize("kind", [normal, read_normal])


def draw(count=COUNT, seed=1, word=WORD, tile=7, event=0, kind=normal):
    return kind(np.array([0, count]), seed=seed, word=word, tiles=np.array([tile]), event=event).astype(float)


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_known_answers(counter, key, output):
    assert tuple(int(word) for word in philox(*counter, *key)) == output


def test_normal_numbers_are_quantiles_of_the_words():
    seed, tile, event = 2**63 - 5, 2**32 - 3, 2**32 - 1
    draws = draw(8, seed=seed, tile=tile, event=event)
    words = [w for block in range(2) for w in philox(block, tile, event, WORD, seed & 0xFFFFFFFF, seed >> 32)]
    # linear interpolation of a table: below 2e-4 where the table is used
    np.testing.assert_allclose(draws, special.ndtri((np.array(words, float) + 0.5) / 2**32), rtol=0, atol=2e-4)


def quantiles(words):
    return np.array([_quantile(np.uint64(w)) for w in words])


def test_quantile_function():
    words = np.unique(np.concatenate([
        np.linspace(0, 2**32 - 1, 4001).astype(np.int64),  # everywhere
        2**24 + np.arange(-3, 4), 255 * 2**24 + np.arange(-3, 4),  # where table and tails meet: 2^-8 and 1 − 2^-8
        np.arange(5), 2**32 - 1 - np.arange(5), (1 << np.arange(32)), 2**32 - (1 << np.arange(32)),
        (np.arange(20, 4080, 50) << 20) - 1, np.arange(20, 4080, 50) << 20,  # ends of intervals
    ]))
    exact = special.ndtri((words + 0.5) / 2**32)
    got = quantiles(words)
    tails = (words < 2**24) | (words >= 255 * 2**24)
    # Acklam's approximation: relative error 1.15e-9; the table: an eighth of the squared interval times the curvature
    # z/φ(z)² at 2^-8, 1.5e-4
    np.testing.assert_allclose(got[tails], exact[tails], rtol=2e-9)
    np.testing.assert_allclose(got[~tails], exact[~tails], rtol=0, atol=1.6e-4)
    assert (np.diff(got) > 0).all()
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, -quantiles(2**32 - 1 - words), rtol=1e-9, atol=1e-12)  # no side is preferred


@both
@pytest.mark.parametrize(("power", "expected", "variance"), [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)])
def test_moments(power, expected, variance, kind):
    # variance of z^p: E z^2p − (E z^p)²
    assert abs(np.mean(draw(kind=kind) ** power) - expected) < SIGMAS * np.sqrt(variance / COUNT)


@both
def test_distribution(kind):
    z = np.sort(draw(kind=kind))
    cumulative = special.ndtr(z)
    steps = np.arange(COUNT + 1) / COUNT
    distance = max(np.abs(cumulative - steps[1:]).max(), np.abs(cumulative - steps[:-1]).max())
    # Kolmogorov: P(√n D > 2.7) = 2 exp(−2·2.7²) = 1e-6; half the probability of a value of read noise, doubled for
    # the scaling of its values to unit variance
    assert distance < 2.7 / np.sqrt(COUNT) + (2.0**-14 if kind is read_normal else 0.0)


def test_read_noise_has_equally_probable_values_within_four_deviations():
    z = draw(2**21, kind=read_normal)
    values, counts = np.unique(z, return_counts=True)
    assert len(values) == 2**14  # each is expected 128 times: missing one has probability 16384 e^-128
    np.testing.assert_allclose(values, -values[::-1], atol=1e-7)
    assert 3.9 < values[-1] < 4.1
    # chi squared of 16383 degrees of freedom: its deviation is the root of twice as many
    assert abs(np.sum((counts - 128.0) ** 2 / 128.0) - 16383) < SIGMAS * np.sqrt(2 * 16383)


def test_tails():
    # how many beyond 4 are expected of a normal, within five roots of that (Poisson)
    expected = COUNT * 2 * special.ndtr(-4.0)
    assert abs(np.count_nonzero(np.abs(draw()) > 4.0) - expected) < SIGMAS * np.sqrt(expected)


OTHER = {
    "tile": {"tile": 8},
    "far tile": {"tile": 7 + 2**20},
    "event": {"event": 1},
    "far event": {"event": 2**31},
    "purpose": {"word": stream(Purpose.PROGRAMMING)},
    "name": {"word": stream(Purpose.READ, "heat_")},
    "seed": {"seed": 2},
    "seed above 32 bits": {"seed": 1 + 2**32},
}


@both
@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
def test_streams_are_independent(other, kind):
    a, b = draw(kind=kind), draw(**other, kind=kind)
    bound = SIGMAS / np.sqrt(COUNT)
    assert abs(np.mean(a * b)) < bound
    assert abs(np.mean((a**2 - 1) * (b**2 - 1))) < 2 * bound  # each factor has variance 2
    assert abs(np.mean(a[1:] * b[:-1])) < bound


@both
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 64, COUNT // 4, COUNT // 4 + 1])
def test_numbers_of_one_stream_are_independent(lag, kind):
    z = draw(kind=kind)
    bound = SIGMAS / np.sqrt(COUNT - lag)
    assert abs(np.mean(z[lag:] * z[:-lag])) < bound
    assert abs(np.mean((z[lag:] ** 2 - 1) * (z[:-lag] ** 2 - 1))) < 2 * bound


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9])
def test_a_longer_draw_begins_with_the_shorter_one(count):
    np.testing.assert_array_equal(draw(count), draw(40)[:count])


@both
def test_a_tile_draws_the_same_in_any_company(kind):
    tiles, lengths = np.array([3, 900, 17, 5]), np.array([6, 0, 11, 4])
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    together = kind(offsets, seed=4, word=WORD, tiles=tiles, event=2)
    for order in ([3, 2, 1, 0], [2, 0], [1], [0, 3, 2]):
        part_offsets = np.concatenate(([0], np.cumsum(lengths[order])))
        part = kind(part_offsets, seed=4, word=WORD, tiles=tiles[order], event=2)
        for place, k in enumerate(order):
            np.testing.assert_array_equal(part[part_offsets[place]:part_offsets[place + 1]],
                                          together[offsets[k]:offsets[k + 1]])


def test_fill_normal_is_the_same_stream():
    out = np.empty(23)
    fill_normal(out, np.uint64(1), np.uint64(WORD), np.int64(7), np.uint64(0))
    np.testing.assert_array_equal(out, draw(23))


def test_stream_words_differ_by_purpose_and_name():
    names = ["", "heat_", "flow_", "flow_fieldsplit_0_", "Heat_"]
    words = {stream(purpose, name) for purpose in Purpose for name in names}
    assert len(words) == len(Purpose) * len(names)
    assert all(0 <= word < 2**32 for word in words)
