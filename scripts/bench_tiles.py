"""How fast the emulation of one tile is, beside CrossSim and aihwkit.

    .venv/bin/python scripts/bench_tiles.py [--passes 5] [--write]

Processor time for one 128 × 128 product or shot with its converters and noise, the smallest of several repetitions,
one thread; 16 tiles with one vector each, and up to 16 000 (1 GB). CrossSim and aihwkit are measured in this run if
they can be imported (`peers_live.py`); else their figures recorded on another day of the same kind of machine stand in
(versions 3.2.0 and 1.1.0). --write replaces the section `tiles` of docs/speed.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import peers_live
import scipy.sparse as sp
from numpy.typing import NDArray
from published import ROOT, table, write_section

from analogpde import Chip, load_chip
from analogpde.chip import Cell, Converter
from analogpde.tile.blocks import Blocks
from analogpde.tile.inv import program_bank
from analogpde.tile.mvm_bank import Entries, MvmBank, program_mvm

TILE, TILES = 128, 16
STREAMED = (16, 500, 16_000)  # 1 MB of cells in the caches, 33 MB, and 1 GB that is not
# µs per product: CrossSim, aihwkit (—: it cannot), and the target
RECORDED = {
    "8-bit cells, 2 % programming, converters 8 bit": ("160", "305", 8.0),
    "and 1 % read noise": ("1543", "318", 10.0),
    "3 × 3-bit slices, an ADC each": ("356", "—", 18.0),
    "wires, 1 Ω on 10 kΩ": ("9000–12000", "—", 8.0),
    "INV shot, PDE block": ("—", "—", 12.0),
    "INV shot, with gain, offsets and wires too": ("—", "—", 12.0),
    "INV shot, dense block": ("—", "—", 12.0),
    "sparse, n = 2025": ("29000", "—", 1000.0),
}
# mean |y − A x|/|A x| that CrossSim shows with noise on both cells of a pair, conductances cut at zero
CROSSSIM_ERRORS = {"8-bit cells, 2 % programming, converters 8 bit": 0.044, "and 1 % read noise": 0.050,
                   "3 × 3-bit slices, an ADC each": 0.039}


def seconds(work: Callable[[], Any], repeat: int = 20, rounds: int = 15) -> float:
    """Return the processor time of one call, the smallest mean of several rounds, s."""
    work()
    best = np.inf
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(repeat):
            work()
        best = min(best, (time.process_time() - start) / repeat)
    return best


def machine(bits: int | None, error: float | None, noise: float | None, calibrated: float | None = None) -> Chip:
    """Return a chip with 8-bit converters; `calibrated`: see `Converter`."""
    cell = Cell(bits=bits, programming_error=error, read_noise=noise, conductance_max=100e-6)
    return Chip("bench", tile_size=TILE, cell=cell, dac=Converter(8), adc=Converter(8, calibrated=calibrated),
                bound_repeats=0)


def dense(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrices of uniform entries in ±1 and normal vectors."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, TILE, TILE)), rng.standard_normal((count, TILE))


class Products:
    """Products with a batch of matrices on open-loop arrays; several banks are slices of one weight 2^-bits another."""

    def __init__(self, banks: list[MvmBank], weights: list[float], x: NDArray[np.float64]) -> None:
        self._banks, self._weights, self._x, self._event = banks, weights, x, 0
        self._part, self._total = np.zeros_like(x), np.zeros_like(x)

    def shot(self) -> NDArray[np.float64]:
        """Return −A x, slices shifted and added."""
        self._event += 1
        self._total[:] = 0.0
        for bank, weight in zip(self._banks, self._weights, strict=True):
            self._part[:] = 0.0
            bank.subtract(self._x, self._part, self._event)
            self._part *= weight
            self._total += self._part
        return self._total


def on_arrays(matrices: NDArray[np.float64], chip: Chip, seed: int = 0) -> MvmBank:
    """Program matrices on arrays."""
    return program_mvm(Entries.of(Blocks.from_dense(matrices)), np.arange(len(matrices)), chip, seed=seed)[0]


def digits(matrices: NDArray[np.float64], bits: int, slices: int) -> list[NDArray[np.float64]]:
    """Return matrices in ±1 as signed digits, the weightiest first; digit s weighs 2^(−bits s)."""
    top = 2 ** (bits * slices) - 1
    rest = np.rint(np.abs(matrices) * top)
    out = []
    for s in range(slices):
        place = 2.0 ** (bits * (slices - 1 - s))
        digit = np.floor(rest / place)
        rest -= digit * place
        out.append(np.sign(matrices) * digit)
    return out


def sliced(matrices: NDArray[np.float64], x: NDArray[np.float64], error: float | None) -> Products:
    """Return products on three slices of three bits, each with ADCs of its own."""
    parts = digits(matrices, 3, 3)
    banks = [on_arrays(part, machine(3, error, None), seed=s) for s, part in enumerate(parts)]
    return Products(banks, [8.0 ** (2 - s) / 511.0 for s in range(3)], x)


def pair_noise(matrices: NDArray[np.float64], levels: int, error: float, seed: int) -> NDArray[np.float64]:
    """Return what pairs of cells hold that are both noisy and conduct at least nothing: CrossSim's cells."""
    rng = np.random.default_rng(seed)
    top = np.abs(matrices).max(axis=(1, 2), keepdims=True)
    held = np.rint(matrices / top * levels) / levels
    plus, minus = (np.maximum(np.maximum(sign * held, 0.0) + error * rng.standard_normal(held.shape), 0.0)
                   for sign in (1.0, -1.0))
    return np.asarray((plus - minus) * top)


def relative_error(products: Products, matrices: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    """Return the mean of |y − A x|/|A x|."""
    exact = -np.einsum("kij,kj->ki", matrices, x)
    return float(np.mean(np.linalg.norm(products.shot() - exact, axis=1) / np.linalg.norm(exact, axis=1)))


def peers_errors(calibrated: float | None, count: int = 200) -> dict[str, float]:
    """Return relative errors with CrossSim's cells on our arrays and converters.

    Args:
        calibrated: None: ADCs follow each vector; else their full scale is the same for all, as CrossSim's.
    """
    a, x = dense(count, 1)
    plain = machine(None, None, None, calibrated)
    once = Products([on_arrays(pair_noise(a, 127, 0.02, 2), plain)], [1.0], x)
    # both cells of every pair are read with noise of 1 % of the largest conductance: √2 of one cell's
    noisy = Products([on_arrays(pair_noise(a, 127, 0.02, 2), machine(
        None, None, 0.01 * np.sqrt(2.0), calibrated))], [1.0], x)
    parts = [pair_noise(part, 7, 0.02, 3 + s) for s, part in enumerate(digits(a, 3, 3))]
    three = Products([on_arrays(part, plain) for part in parts], [8.0 ** (2 - s) / 511.0 for s in range(3)], x)
    names = list(CROSSSIM_ERRORS)
    return {name: relative_error(products, a, x) for name, products in zip(names, (once, noisy, three), strict=True)}


def grid(rows: int, columns: int) -> sp.csr_array:
    """Return the five-point stencil."""
    def line(n: int) -> sp.dia_array:
        return sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])

    return sp.csr_array(sp.kron(line(rows), sp.eye_array(columns)) + sp.kron(sp.eye_array(rows), line(columns)))


def inv_shot(matrix: NDArray[np.float64], chip: Chip) -> float:
    """Return the time of one INV shot, s."""
    bank = program_bank(Blocks.from_dense(np.stack([matrix] * TILES)), chip)
    right, event = np.random.default_rng(0).standard_normal((TILES, TILE)), [0]

    def work() -> None:
        event[0] += 1
        bank.shoot(right.copy(), event[0])

    return seconds(work) / TILES


def sparse_product() -> tuple[float, int, float]:
    """Return the time of a product with a sparse matrix of n = 2025 on 128-tiles, its tiles, and its relative error."""
    a = sp.coo_array(grid(45, 45))
    across = -(-a.shape[0] // TILE)
    part = (a.row // TILE) * across + a.col // TILE
    used, owner = np.unique(part, return_inverse=True)
    entries = Entries(owner.astype(np.int64), (a.row % TILE).astype(np.int64), (a.col % TILE).astype(np.int64), a.data)
    bank, _ = program_mvm(entries.sorted(), np.arange(len(used)), machine(7, 0.02, None))
    x = np.random.default_rng(0).standard_normal(a.shape[0])
    padded, event = np.zeros(across * TILE), [0]
    padded[: len(x)] = x
    y = np.zeros((len(used), TILE))

    def work() -> NDArray[np.float64]:
        event[0] += 1
        y[:] = 0.0
        bank.subtract(padded.reshape(across, TILE)[used % across], y, event[0])
        total = np.zeros((across, TILE))
        np.add.at(total, used // across, y)
        return -total.reshape(-1)[: len(x)]

    exact = a @ x
    return seconds(work), len(used), float(np.linalg.norm(work() - exact) / np.linalg.norm(exact))


def bandwidth(tiles: int, part: int = 500) -> tuple[float, float, float]:
    """Return µs per product of many tiles, each read from memory: ours, NumPy's of the same, and a bare GEMV's.

    Values and errors repeat after `part` tiles, memory does not: every tile has 64 kB of its own. The bare product is
    one of all tiles' rows with a single vector, which stays in the cache.
    """
    part = min(part, tiles)
    a, x = dense(part)
    bank = on_arrays(a, machine(7, 0.02, None))
    starts, full, variance = bank._crowded_columns  # what a product reads
    bare = {name: getattr(bank, name)[:0] for name in ("row", "col", "value")}
    banks = []
    memory = np.empty((tiles // part, len(full)), np.float32)
    for mine in memory:
        mine[:] = full
        banks.append(dataclasses.replace(bank, **bare))
        banks[-1].__dict__["_crowded_columns"] = starts, mine, variance
    y, event = np.zeros_like(x), [0]

    def shots() -> None:
        event[0] += 1
        for one in banks:
            y[:] = 0.0
            one.subtract(x, y, event[0])

    count = len(banks) * part
    ours = seconds(shots, repeat=1, rounds=5) / count
    rows, out = x.astype(np.float32)[:, None, :], np.empty((part, 1, TILE), np.float32)

    def batched() -> None:
        for mine in memory:
            np.matmul(rows, mine.reshape(part, TILE, TILE), out=out)

    theirs = seconds(batched, repeat=1, rounds=5) / count
    whole, vector = memory.reshape(-1, TILE), rows[0, 0]
    return 1e6 * ours, 1e6 * theirs, 1e6 * seconds(lambda: whole @ vector, repeat=1, rounds=5) / count


def on_peers(name: str, count: int) -> tuple[dict[str, peers_live.Product | None], list[NDArray[np.float64]]]:
    """Return so many products of each peer that does a case, None if it cannot be imported, and the exact ones."""
    a, x = dense(count)
    names = list(RECORDED)
    matrices, vectors, read = list(a), list(x), 0.01 if name == names[1] else None
    made: dict[str, peers_live.Product | None] = {}
    if name in names[:2]:
        made["CrossSim"] = peers_live.crosssim(matrices, vectors, error=0.02, read=read)
        # both cells of a pair are read with noise: √2 of one's
        made["aihwkit"] = peers_live.aihwkit(list(pair_noise(a, 127, 0.02, 2)), vectors,
                                             read=np.sqrt(2.0) * read if read else None)
    elif name == names[2]:
        made["CrossSim"] = peers_live.crosssim(matrices, vectors, error=0.02, digits=digits(a, 3, 3))
    elif name == names[3]:
        matrices, vectors = [np.abs(m) for m in a[:2]], vectors[:2]
        made["CrossSim"] = peers_live.crosssim(matrices, vectors, wire=1.0, converters=None)
    elif name == names[7]:
        matrices = [grid(45, 45).toarray()]
        vectors = [np.random.default_rng(0).standard_normal(45 * 45)]
        made["CrossSim"] = peers_live.crosssim(matrices, vectors, error=0.02, tile=TILE)
    return made, [m @ v for m, v in zip(matrices, vectors, strict=True)]


def peers(name: str, several: int = 200) -> dict[str, tuple[float, float]]:
    """Return the µs a product and the relative error, of many, of each peer that can be imported and does the case."""
    found = {}
    for peer, work in on_peers(name, TILES)[0].items():
        if work is not None:
            made, exact = on_peers(name, several)
            many = made[peer]
            assert many is not None
            error = np.mean([np.linalg.norm(y - e) / np.linalg.norm(e) for y, e in zip(many(), exact, strict=True)])
            count = min(TILES, len(exact))
            found[peer] = 1e6 * seconds(work, repeat=1, rounds=5) / count, float(error)
    return found


def measure() -> dict[str, tuple[float, str]]:
    """Return seconds and remarks of each case."""
    a, x = dense(TILES)
    out: dict[str, tuple[float, str]] = {}
    names = list(RECORDED)
    for name, noise in ((names[0], None), (names[1], 0.01)):
        products = Products([on_arrays(a, machine(7, 0.02, noise))], [1.0], x)
        out[name] = seconds(products.shot) / TILES, f"relative error {relative_error(products, a, x):.3f}"
    three = sliced(a, x, 0.02)
    out[names[2]] = seconds(three.shot) / TILES, f"relative error {relative_error(three, a, x):.3f}"
    wired = machine(None, None, None)
    wired = dataclasses.replace(wired, wire=dataclasses.replace(wired.wire, row=1.0, column=1.0))
    start = time.process_time()
    products = Products([on_arrays(np.abs(a[:2]), wired)], [1.0], x[:2])
    programming = (time.process_time() - start) / 2
    products = Products([on_arrays(np.abs(a[:1]).repeat(TILES, axis=0), dataclasses.replace(
        wired, wire=dataclasses.replace(wired.wire, elimination="approximate")))], [1.0], x)
    out[names[3]] = seconds(products.shot) / TILES, f"after programming, {programming:.2f} s a tile (target 0.3)"
    g = np.random.default_rng(0).standard_normal((TILE, 4 * TILE))
    chip = load_chip("rram128")
    real = dataclasses.replace(chip, amplifier=dataclasses.replace(chip.amplifier, gain=1e5, offset=1e-3),
                               wire=dataclasses.replace(chip.wire, row=1.0, column=1.0))
    out[names[4]] = inv_shot(grid(8, 16).toarray(), chip), "chip rram128, five-point stencil on 8 × 16"
    out[names[5]] = inv_shot(grid(8, 16).toarray(), real), "the same, gain 10⁵, offsets 1 mV, wires 1 Ω"
    out[names[6]] = inv_shot(g @ g.T / (4 * TILE), chip), "chip rram128, Gram matrix"
    took, tiles, error = sparse_product()
    out[names[7]] = took, f"{tiles} tiles that hold anything, relative error {error:.3f}"
    return out


def gemv() -> float:
    """Return µs of NumPy's single-precision product of one 128 × 128 matrix: how fast the machine is just now."""
    a, x = dense(1)
    single, vector = a[0].astype(np.float32), x[0].astype(np.float32)
    return 1e6 * seconds(lambda: single @ vector, repeat=200)


def text(passes: int) -> str:
    """Return the section of the page; of each case the fastest of several passes."""
    rows, found, bare = [], measure(), gemv()
    live: dict[str, dict[str, tuple[float, float]]] = {}
    for _ in range(passes - 1):
        found = {name: min(found[name], other) for name, other in measure().items()}
        bare = min(bare, gemv())
    for name, (took, remark) in found.items():
        recorded, other, target = RECORDED[name]
        now = peers(name)
        live[name] = now
        columns = [f"{max(now[peer][0], 1.0):.0f} (now)" if peer in now else words
                   for peer, words in (("CrossSim", recorded), ("aihwkit", other))]
        rows.append([name, f"**{1e6 * took:.3g}**", *columns, f"{target:g}", "yes" if 1e6 * took <= target else "no",
                     "; ".join([remark, *(f"{peer}: relative error {error:.3f}" for peer, (_, error) in now.items())])])
    errors, following = peers_errors(1.0), peers_errors(None)
    theirs = {name: live[name]["CrossSim"][1] if "CrossSim" in live[name] else error
              for name, error in CROSSSIM_ERRORS.items()}
    where = "now" if any("CrossSim" in now for now in live.values()) else "recorded"
    return "\n\n".join([
        f"NumPy's bare product of one such matrix and vector took {bare:.1f} µs in this run, and 4.2 µs when the "
        "others were recorded.",
        table(["case", "analogpde, µs", "CrossSim, µs", "aihwkit, µs", "target, µs", "met", ""], rows),
        table(["relative error with CrossSim's cells", "analogpde, ADCs calibrated", f"CrossSim, {where}", "difference",
               "ADCs that follow each vector"],
              [[name, f"{error:.4f}", f"{theirs[name]:.3f}", f"{error / theirs[name] - 1:+.1%}",
                f"{following[name]:.4f}"] for name, error in errors.items()]),
        table(["tiles", "analogpde, programming error and converters", "NumPy's bare product of the same tiles",
               "one bare GEMV over the same memory"], [streamed(tiles) for tiles in STREAMED])])


def streamed(tiles: int) -> list[str]:
    """Return a row of the table of many tiles."""
    return [f"{tiles:,}"] + [f"{took:.2g} µs a tile, {4e-3 * TILE**2 / took:.2g} GB/s" for took in bandwidth(tiles)]


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the section of docs/speed.md")
    parser.add_argument("--passes", type=int, default=1, help="measure everything so often; the fastest counts")
    arguments = parser.parse_args()
    if arguments.passes < 1:
        parser.error(f"--passes {arguments.passes}: one or more")
    section, page = text(arguments.passes), ROOT / "docs" / "speed.md"
    if arguments.write:
        write_section("tiles", section, page)
    print(section)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
