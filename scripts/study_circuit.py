"""The circuit of a tile: agreement with ngspice, settling, wires, and what each effect costs a solve.

    .venv/bin/python scripts/study_circuit.py [--quick]

1. Every static effect, alone and all together: the emulator's formulas against the project's nodal solver and ngspice.
2. Settling: waveforms and settling times against ngspice.
3. Wires: what ignoring and approximating them costs, and the estimate.
4. Poisson's equation: iterations to FP32-equivalence against the strength of each effect.
5. Published values beside ours.
6. Time that the emulation takes.

Writes docs/images/circuit_*.png and the section `study` of docs/circuit.md; --quick takes few cases and only prints.
Without ngspice its columns stay empty. Three minutes.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from published import INK, ROOT, figure, save, table, write_section
from reproduce_pku2025 import spectrum

import analogpde
from analogpde import Chip, load_chip
from analogpde.errors import ProgrammingFailed
from analogpde.tile.blocks import Blocks
from analogpde.tile.circuit import Circuit, Parts, have_ngspice, inv_tile, ngspice
from analogpde.tile.factors import factorise
from analogpde.tile.inv import program_bank
from analogpde.tile.loop import Spread, close, siemens
from analogpde.tile.programming import program, scale_blocks
from analogpde.tile.saturation import saturate
from analogpde.tile.settling import sampling, settling_time
from analogpde.tile.wires import approximate, eliminate, error_estimate

BANDWIDTH = 1e6
ALL = {"amplifier_gain": 1e3, "amplifier_offset": 1e-3, "input_conductance": 5e-5, "inverter_gain": 1e3,
       "inverter_offset": 1e-3, "inverter_mismatch": 0.01, "wire_resistance": 5.0}
EFFECTS: dict[str, dict[str, Any]] = {
    "gain 10³": {"amplifier_gain": 1e3},
    "gain 10⁴, offset 1 mV": {"amplifier_gain": 1e4, "amplifier_offset": 1e-3},
    "gain 10³, input conductance 50 µS": {"amplifier_gain": 1e3, "input_conductance": 5e-5},
    "inverters: gain 10³": {"inverter_gain": 1e3},
    "inverters: offset 1 mV": {"inverter_offset": 1e-3},
    "inverters: mismatch 1 %": {"inverter_mismatch": 0.01},
    "wires 5 Ω": {"wire_resistance": 5.0},
    "all of these": ALL,
}


def laplacian(n: int, m: int) -> NDArray[np.float64]:
    """Return the five-point stencil on n × m points."""
    lines = [sp.diags_array([-np.ones(k - 1), 2 * np.ones(k), -np.ones(k - 1)], offsets=[-1, 0, 1]) for k in (n, m)]
    return np.asarray((sp.kron(lines[0], sp.eye_array(m)) + sp.kron(sp.eye_array(n), lines[1])).toarray())


class Tile:
    """One tile with random inputs: the loop as the emulator has it, and the netlist."""

    def __init__(self, matrix: NDArray[np.float64], chip: Chip) -> None:
        scaled, scale, sign = scale_blocks(Blocks.from_dense(matrix[None]))
        held = program(scaled, scale, sign, chip)
        self.chip, self.n, self.unit = chip, len(matrix), siemens(held, chip)[0]
        self.spread = Spread.draw(scaled, chip, seed=1, name="study")
        self.loop = close(held, chip, self.spread)
        self.matrix, self.ideal = self.loop.blocks.dense()[0], held.blocks.dense()[0]
        self.input = np.random.default_rng(1).uniform(-0.1, 0.1, self.n)
        self.outputs = [f"c{k}" for k in range(self.n)]

    def netlist(self, gain: float = 1e12, swing: float = np.inf) -> Circuit:
        """Return the circuit; amplifiers that are ideal on the chip have the given gain."""
        chip, g, pole = self.chip, self.ideal * self.unit, self.chip.inverter.gain_bandwidth
        return inv_tile(np.maximum(g, 0), np.maximum(-g, 0), self.input * self.unit, Parts(
            gain=chip.amplifier.gain or gain, gain_bandwidth=chip.amplifier.gain_bandwidth or np.inf, swing=swing,
            second_pole=chip.amplifier.second_pole or np.inf,
            offset=self.spread.offset[0], input_conductance=chip.amplifier.input_conductance or 0.0,
            inverter_gain=chip.inverter.gain or (gain if pole else None), inverter_bandwidth=pole or np.inf,
            inverter_offset=self.spread.inverter_offset[0], ratio=self.spread.ratio[0], row=chip.wire.row or 0.0,
            column=chip.wire.column or 0.0))

    def nodal(self, swing: float = np.inf) -> NDArray[np.float64]:
        """Return the outputs by the nodal solver."""
        volts = self.netlist(swing=swing).solve()
        return np.array([volts[name] for name in self.outputs])

    def settled(self) -> NDArray[np.float64]:
        """Return the outputs by the emulator's formulas."""
        return np.asarray(np.linalg.solve(self.matrix, self.input + self.loop.offset[0]))


def off(got: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Return the largest difference relative to the largest value."""
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def agreement() -> str:
    """Return the table of static effects."""
    quiet = load_chip("sram64").replace(read_noise=None, dac_bits=None, adc_bits=None)
    blocks = [laplacian(2, 2), laplacian(4, 4), laplacian(4, 8)]
    rows = []
    for name, effect in EFFECTS.items():
        tiles = [Tile(block, quiet.replace(**effect)) for block in blocks]
        nodal = [tile.nodal() for tile in tiles]
        spice = "—"
        if have_ngspice():
            answers = [ngspice(tile.netlist(gain=1e8), tile.outputs)[1][0] for tile in tiles]
            spice = f"{max(off(t.settled(), v) for t, v in zip(tiles, answers, strict=True)):.0e}"
        ignored = max(off(np.linalg.solve(t.ideal, t.input), v) for t, v in zip(tiles, nodal, strict=True))
        ours = max(off(t.settled(), v) for t, v in zip(tiles, nodal, strict=True))
        rows.append([name, f"{ignored:.0e}", f"{ours:.0e}", spice])
    for name, effect in (("swing: half of the largest output", {"amplifier_gain": 1e4}),
                         ("all of these, swing", ALL)):
        chip = quiet.replace(gain_bandwidth=BANDWIDTH, **effect)
        tile = Tile(blocks[1], chip)
        free = tile.settled()
        swing = 0.5 * float(np.abs(free).max())
        got = saturate(tile.matrix[None], tile.loop.load, free[None], swing)[0][0]
        wanted, spice = tile.nodal(swing=swing), "—"
        if have_ngspice():
            last = 40 * settling_time(tile.loop, factorise(tile.loop.blocks), chip)[0] / np.log(2.0**25)
            waves = ngspice(tile.netlist(swing=swing), tile.outputs, f"tran {last / 400:.6g} {last:.6g} uic")[1]
            spice = f"{off(got, waves[-1]):.0e}"
        rows.append([f"{name} (ignored: clipped afterwards)", f"{off(np.clip(free, -swing, swing), wanted):.0e}",
                     f"{off(got, wanted):.0e}", spice])
    return table(["effect", "if ignored", "formula − nodal solver", "formula − ngspice"], rows)


def settling(axes: Any) -> str:
    """Draw answers read early; return the table of settling times."""
    quiet = load_chip("sram64").replace(read_noise=None, dac_bits=None, adc_bits=8, gain_bandwidth=BANDWIDTH,
                                        amplifier_gain=1e5)
    rows = []
    cases = {"ideal inverters": {}, "inverters ten times faster": {"inverter_gain_bandwidth": 10 * BANDWIDTH},
             "inverters of the same op-amp": {"inverter_gain_bandwidth": BANDWIDTH},
             "second pole at a fifth of 1 MHz": {"second_pole": 0.2 * BANDWIDTH}}
    for (name, poles), color in zip(cases.items(), ("ours", "other", "published", "grey"), strict=True):
        chip = quiet.replace(**poles)
        tile = Tile(laplacian(4, 8), chip)
        values, modes = np.linalg.eig(tile.matrix / tile.loop.load[0][:, None])
        mode = modes[:, np.argmin(values.real)].real
        tile.input = tile.matrix @ mode / np.abs(mode).max() * 0.05
        rest = tile.settled()
        predicted = float(settling_time(tile.loop, factorise(tile.loop.blocks), chip)[0])
        times = np.linspace(0.05, 1.2, 24) * predicted
        early = []
        for moment in times:
            s = sampling(tile.loop, chip.replace(settle_time=float(moment)))
            assert s is not None
            early.append(off(s[0] @ rest, rest))
        axes.semilogy(times * 1e6, early, color=INK[color], label=name)
        measured = "—"
        if have_ngspice():
            when, volts = ngspice(tile.netlist(gain=1e9), tile.outputs,
                                  f"tran {predicted / 800:.6g} {1.25 * predicted:.6g} uic")
            missing = np.abs(volts - rest).max(axis=1) / np.abs(rest).max()
            axes.semilogy(when[::50] * 1e6, missing[::50], "o", color=INK[color], markersize=3)
            late = np.flatnonzero(missing > 2.0**-9)[-1]
            a, b = np.log(missing[late : late + 2])
            found = when[late] + (when[late + 1] - when[late]) * (a + 9 * np.log(2)) / (a - b)
            measured = f"{found * 1e6:.3g} µs ({found / predicted - 1:+.1%})"
        rows.append([name, f"{predicted * 1e6:.3g} µs", measured])
    axes.axhline(2.0**-9, color=INK["grey"], linewidth=0.8)
    axes.set_xlabel("time of reading, µs")
    axes.set_ylabel("error of the answer")
    axes.set_title("read early: lines emulator, dots ngspice")
    axes.legend()
    return table(["4 × 8 grid, 1 MHz, 8 bits", "formula", "ngspice"], rows)


def wires(axes: Any, sizes: tuple[int, ...]) -> str:
    """Draw errors of the approximation; return the table."""
    rows = []
    rng = np.random.default_rng(0)
    for name, color in (("full", "published"), ("five-point", "ours")):
        changes, errors = [], []
        for n in sizes:
            g = rng.uniform(0.5e-6, 35e-6, (n, n))
            if name != "full":
                width = 2 ** (int(np.log2(n)) // 2)
                g = np.where(laplacian(width, n // width) != 0, g, 0.0)
            for ohm in (0.5, 1.0, 5.0):
                r = np.array([ohm])
                begin = time.perf_counter()
                exact = eliminate(g[None], r, r)[0]
                seconds = time.perf_counter() - begin
                got, change = approximate(g[None], r, r)
                size = np.linalg.norm(exact)
                error, ignored = np.linalg.norm(got - exact) / size, np.linalg.norm(g - exact) / size
                changes.append(change[0])
                errors.append(error)
                estimate = error_estimate(change)[0]
                rows.append([name, str(n), f"{ohm:g} Ω", f"{ignored:.1e}", f"{error:.1e}",
                             f"{estimate:.1e}" if np.isfinite(estimate) else "none", f"{seconds:.2g} s"])
        axes.loglog(changes, errors, "o", color=INK[color], markersize=4, label=name)
    e = np.geomspace(1e-4, 0.3, 20)
    axes.loglog(e, error_estimate(e), color=INK["grey"], linewidth=0.8, label="estimate")
    axes.set_xlabel("what the wires change, e")
    axes.set_ylabel("error of the approximation")
    axes.set_title("wires entry by entry")
    axes.legend()
    return table(["array, 0.5…35 µS", "rows", "a segment", "ignored", "approximated", "estimate", "exact takes"], rows)


SWEEPS: dict[str, tuple[str, list[float], dict[str, Any]]] = {
    "amplifier_gain": ("open-loop gain", [1e1, 3e1, 1e2, 1e3, 1e4], {}),
    "amplifier_offset": ("amplifier offset, V", [1e-4, 1e-3, 3e-3, 1e-2, 3e-2], {}),
    "inverter_mismatch": ("inverter mismatch", [1e-3, 3e-3, 1e-2, 3e-2, 1e-1], {}),
    "wire_resistance": ("wire segment, Ω", [0.3, 1.0, 3.0, 10.0, 30.0], {}),
    "settle_time": ("read after, s (10 MHz)", [3e-8, 1e-7, 3e-7, 1e-6, 3e-6], {"gain_bandwidth": 1e7}),
    "adc_offset": ("ADC offset, of full scale", [1e-3, 3e-3, 1e-2, 3e-2, 1e-1], {}),
}


def solves(axes: Any, n: int) -> str:
    """Draw iterations against the strength of each effect; return the table."""
    line = sp.diags_array([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    matrix = sp.csr_array(sp.kron(line, sp.eye_array(n)) + sp.kron(sp.eye_array(n), line))
    b = np.sin(0.1 * np.arange(n * n)) + 1.0
    plain = analogpde.solve(matrix, b, chip="rram128")
    exact = sp.linalg.spsolve(matrix.tocsc(), b)
    rows = []
    colors = ["#1f5fa8", "#b3261e", "#2e7d4f", "#00908a", "#6a3d9a", "#6b6b6b"]
    for (name, (words, values, more)), color in zip(SWEEPS.items(), colors, strict=True):
        found = []
        for value in values:
            chip = load_chip("rram128").replace(**more, **{name: value})
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a refused solve: it is counted
                    answer = analogpde.solve(matrix, b, chip=chip)
            except ProgrammingFailed:
                found.append("no stable tile")
                continue
            error = np.linalg.norm(answer.x - exact) / np.linalg.norm(exact)
            if answer.converged and error > 2.0**-23:
                raise SystemExit(f"{name} {value}: called converged with an error of {error:.1e}")
            found.append(str(answer.statistics.iterations) if answer.converged else "refused")
        steps = [int(f) if f.isdigit() else np.nan for f in found]
        strength = np.arange(5) if name not in ("amplifier_gain", "settle_time") else np.arange(5)[::-1]
        axes.plot(strength, steps, "o-", color=color, markersize=3.5, label=f"{words}: {values[0]:g} … {values[-1]:g}")
        rows.append([words, *(f"{v:g}: {f}" for v, f in zip(values, found, strict=True))])
    axes.axhline(plain.statistics.iterations, color=INK["grey"], linewidth=0.8)
    axes.set_xlabel("strength of the effect, weakest to strongest value")
    axes.set_ylabel("iterations to FP32-equivalence")
    axes.set_title(f"Poisson, {n} × {n}, rram128: {plain.statistics.iterations} without")
    axes.legend(fontsize=6.5)
    return table([f"{n * n} unknowns; without: {plain.statistics.iterations} iterations", "", "", "", "", ""], rows)


def published(count: int, sizes: tuple[int, ...]) -> str:
    """Return the table of published values beside ours."""
    rng = np.random.default_rng(0)
    chip = load_chip("pku2025").replace(read_noise=None, programming_error=None, gain_bandwidth=500e6, adc_bits=4)
    times = []
    for bandwidth in (None, 500e6):
        bank = program_bank(Blocks.from_dense(spectrum(count, 8, 10.0, rng)),
                            chip.replace(inverter_gain_bandwidth=bandwidth))
        times.append(float(np.median(bank.settling)))
    rows = [["settling of an 8 × 8 INV array, 500 MHz op-amps, 4 bits, κ = 10", "about 120 ns, second-hand",
             f"{times[0] * 1e9:.2g} ns; {times[1] * 1e9:.2g} ns if the inverters' op-amps are the same"]]
    for n in sizes:
        steps = []
        matrices = spectrum(4, n, 10.0, np.random.default_rng(n))
        for ohm in (None, 1.73):
            wired = load_chip("pku2025").replace(tile_size=128, wire_resistance=ohm)
            answers = [analogpde.solve(matrix, matrix @ np.ones(n), chip=wired, accelerator="none", rtol=1e-7)
                       for matrix in matrices]
            if not all(answer.converged for answer in answers):
                raise SystemExit(f"{n} rows, {ohm} Ω: not converged")
            steps.append(np.mean([answer.statistics.iterations for answer in answers]))
        rows.append([f"refinement steps to 1e-7, {n} × {n}, κ = 10, wires 1.73 Ω a cell",
                     "no visible effect up to 128 × 128, second-hand", f"{steps[0]:.3g} without, {steps[1]:.3g} with"])
    return table(["quantity", "published (Zuo et al. 2025)", "ours, chip `pku2025`"], rows)


def speed(count: int) -> str:
    """Return the table of emulation times."""
    block = laplacian(8, 16)
    blocks = Blocks.from_dense(np.repeat(block[None], count, axis=0))
    one = Blocks.from_dense(block[None])
    cases: dict[str, dict[str, Any]] = {
        "none": {}, "gain, inverter mismatch": {"amplifier_gain": 1e4, "inverter_mismatch": 2e-3},
        "wires, exact": {"wire_resistance": 1.0},
        "wires, approximate": {"wire_resistance": 1.0, "wires": "approximate"},
        "offsets, swing, converter offsets": {"amplifier_offset": 1e-3, "output_swing": 1.0, "adc_offset": 2e-3},
        "all, wires approximate": {
            "amplifier_gain": 1e4, "inverter_mismatch": 2e-3, "wire_resistance": 1.0, "wires": "approximate",
            "amplifier_offset": 1e-3, "output_swing": 1.0, "adc_offset": 2e-3, "gain_bandwidth": 1e7},
    }
    rows = []
    for name, effect in cases.items():
        chip = load_chip("rram128").replace(**effect)
        program_bank(one, chip)
        begin = time.perf_counter()
        bank = program_bank(blocks, chip)
        programming = (time.perf_counter() - begin) / count
        best = np.inf
        for event in range(7):
            x = np.random.default_rng(event).normal(size=(count, 128))
            begin = time.perf_counter()
            bank.shoot(x, event)
            best = min(best, (time.perf_counter() - begin) / count)
        rows.append([name, f"{programming * 1e3:.2g} ms", f"{best * 1e6:.3g} µs"])
    return table([f"five-point stencil, 128 rows, {count} tiles", "programming a tile", "a shot of a tile"], rows)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few cases, prints only")
    quick = parser.parse_args().quick
    drawn, axes = figure(3, 3.6)
    parts = [agreement(), settling(axes[0]), wires(axes[1], (32,) if quick else (32, 64, 128)),
             solves(axes[2], 12 if quick else 32), published(4 if quick else 40, (16,) if quick else (16, 64, 128)),
             speed(8 if quick else 128)]
    if quick:
        print("\n\n".join(parts))
        return
    save(drawn, "circuit_study.png")
    text = [parts[0], parts[1], "![Answers read early, errors of approximated wires, and iterations against the "
            "strength of each effect](images/circuit_study.png)", *parts[2:]]
    write_section("study", "\n\n".join(text), ROOT / "docs" / "circuit.md")


if __name__ == "__main__":
    main()
