"""Repeat the experiments of the chip paper on the emulated chip and set its figures beside ours.

    .venv/bin/python scripts/reproduce_pku2025.py [--quick]

Zuo et al., Nature Electronics 2025, doi:10.1038/s41928-025-01477-0: HP-INV convergence at 4 × 4 with 12 bits, 16 × 16
with 24 bits and 8 × 8 complex, the error of a single shot, zero-forcing detection in MIMO. Writes
docs/images/pku2025_*.png and the section `pku2025` of docs/published.md; --quick takes few samples and only prints. One
minute.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from published import INK, Tiles, figure, refine, relative_errors, save, table, write_section

from analogpde import Chip, load_chip

CONDITION = 8.0
STEPS = 10
SMALL, LARGE = "4 × 4, 12 bits, one array", "16 × 16, 24 bits, BlockAMC on 8 × 8"
STAGES = "16 × 16, 24 bits, two stages on 4 × 4"
COMPLEX, GRAM = "8 × 8 complex, BlockAMC on 8 × 8", "Gram of 128 × 8 channels, BlockAMC on 8 × 8"


def spectrum(count: int, n: int, condition: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return symmetric positive definite matrices of a given condition, eigenvalues in geometric progression."""
    q = np.linalg.qr(rng.standard_normal((count, n, n)))[0]
    return np.asarray((q * np.geomspace(1.0, 1.0 / condition, n)) @ np.swapaxes(q, 1, 2))


def real_form(matrices: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Return complex matrices as real ones of twice the size."""
    return np.block([[matrices.real, -matrices.imag], [matrices.imag, matrices.real]])


def channels(count: int, receivers: int, senders: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """Return Rayleigh channels, entries of unit variance."""
    parts = rng.standard_normal((2, count, receivers, senders))
    return np.asarray((parts[0] + 1j * parts[1]) / np.sqrt(2.0))


def hermitian(count: int, n: int, condition: float, rng: np.random.Generator) -> NDArray[np.complex128]:
    """The same as `spectrum` with complex eigenvectors."""
    parts = rng.standard_normal((2, count, n, n))
    q = np.linalg.qr(parts[0] + 1j * parts[1])[0]
    return np.asarray((q * np.geomspace(1.0, 1.0 / condition, n)) @ np.conj(np.swapaxes(q, 1, 2)))


@dataclass
class Convergence:
    """Relative errors of HP-INV over steps, of many matrices: shape (steps + 1, K), and circuits that were unstable."""

    title: str
    errors: NDArray[np.float64]
    unstable: int

    @property
    def median(self) -> NDArray[np.float64]:
        """Median over matrices at each step."""
        return np.asarray(np.median(self.errors, axis=1))

    @property
    def bits(self) -> float:
        """Bits that a step gains, over the first three, before the residual's own precision is felt."""
        return float(np.log2(self.median[0] / self.median[3]) / 3.0)


def convergence(
    title: str, matrices: NDArray[np.float64], chip: Chip, *, bits: int, rule: str, slices: int = 1, seed: int = 0,
) -> Convergence:
    """Run HP-INV on a batch of matrices with random solutions."""
    exact = np.random.default_rng(seed).standard_normal(matrices.shape[:2])
    right = np.einsum("kij,kj->ki", matrices, exact)
    tiles = Tiles(matrices, chip, rule, slices, seed)
    errors = relative_errors(refine(matrices, right, tiles, STEPS, bits), exact)
    errors[0] = 1.0
    return Convergence(title, errors, int(np.count_nonzero(~tiles.stable)) if rule == "published" else 0)


def all_convergences(count: int) -> dict[str, list[Convergence]]:
    """Run the three published sizes, with the published rule and with ours."""
    rng = np.random.default_rng(1)
    chip = load_chip("pku2025").replace(tile_size=8)
    exact = chip.replace(programming_error=None, read_noise=None, dac_bits=None, adc_bits=None)
    small, large = spectrum(count, 4, CONDITION, rng), spectrum(count, 16, CONDITION, rng)
    gram = channels(count, 128, 8, rng)
    gram = np.conj(np.swapaxes(gram, 1, 2)) @ gram / 128.0
    complex8 = real_form(hermitian(count, 8, CONDITION, rng))
    out: dict[str, list[Convergence]] = {}
    for name, matrices, bits in ((SMALL, small, 12), (LARGE, large, 24), (STAGES, large, 24), (COMPLEX, complex8, 24),
                                 (GRAM, real_form(gram), 24)):
        chip, exact = (machine.replace(tile_size=4 if name == STAGES else 8) for machine in (chip, exact))
        out[name] = [
            convergence("nearest level (paper)", matrices, chip, bits=bits, rule="published"),
            convergence("nearest level, no other error", matrices, exact, bits=bits, rule="published"),
            convergence("stable rounding, one slice", matrices, chip, bits=bits, rule="ours"),
            convergence("stable rounding, two slices", matrices, chip, bits=bits, rule="ours", slices=2)]
    return out


def by_condition(count: int) -> list[list[str]]:
    """Return rows of a table: bits a step and error after ten of the paper's rule over the condition of the matrices.

    The last two rows are Gram matrices of channels as the paper detects with, whose condition is what it is.
    """
    rng = np.random.default_rng(4)
    rows = []
    batches = [(f"{condition:g}", spectrum(count, 4, condition, rng), spectrum(count, 16, condition, rng))
               for condition in (2.0, 3.0, 5.0, 8.0, 12.0)]
    for name, small, large in batches:
        cells = [name]
        for matrices, tile, bits in ((small, 8, 12), (large, 8, 24), (large, 4, 24)):
            cells.append(_rate(matrices, tile, bits))
        rows.append(cells)
    for receivers, senders in ((16, 4), (128, 8)):
        h = channels(count, receivers, senders, rng)
        gram = real_form(np.conj(np.swapaxes(h, 1, 2)) @ h / receivers)
        condition = float(np.median(np.linalg.cond(gram)))
        name = f"{condition:.1f} (median), Gram of {receivers} × {senders} channels, {len(gram[0])} × {len(gram[0])}"
        rows.append([name, "", _rate(gram, 8, 24), _rate(gram, 4, 24)])
    return rows


def _rate(matrices: NDArray[np.float64], tile: int, bits: int) -> str:
    """Return bits a step and the error after ten steps with the paper's rule, in words."""
    run = convergence("", matrices, load_chip("pku2025").replace(tile_size=tile), bits=bits, rule="published")
    return f"{run.bits:.1f}, {run.median[10]:.0e}"


def single_shots(count: int) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return errors of one INV shot against A⁻¹b and against A0⁻¹b, what the cells were meant to hold."""
    rng = np.random.default_rng(2)
    chips = {"3-bit cells, 2 %, 4-bit converters": load_chip("pku2025").replace(tile_size=16),
             "3-bit cells, 2 %, 8-bit converters": load_chip("pku2025").replace(tile_size=16, adc_bits=8, dac_bits=8),
             "continuous cells, 1 %, ideal converters": load_chip("ideal").replace(
                 tile_size=16, programming_error=0.01)}
    out: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, chip in chips.items():
        for n in (4, 16):
            matrices = spectrum(count, n, CONDITION, rng)
            exact = rng.standard_normal((count, n))
            right = np.einsum("kij,kj->ki", matrices, exact)
            tiles = Tiles(matrices, chip)
            x = tiles.shoot(right)
            good = tiles.stable
            meant = np.linalg.solve(tiles.held[good], right[good][..., None])[..., 0]
            out[f"{n} × {n}: {name}"] = {"matrix": relative_errors(x[good], exact[good]),
                                         "circuit": relative_errors(x[good], meant)}
    return out


LEVELS = 2.0 * np.arange(16) - 15.0
GRAY = np.arange(16) ^ (np.arange(16) >> 1)
ONES = np.array([int(v).bit_count() for v in range(16)])


def bit_errors(sent: NDArray[np.int64], received: NDArray[np.float64]) -> int:
    """Count wrong bits of Gray-coded 16-level amplitudes, the two halves of a 256-QAM symbol."""
    decided = np.clip(np.rint((np.nan_to_num(received) + 15.0) / 2.0), 0, 15).astype(np.int64)
    return int(ONES[GRAY[sent] ^ GRAY[decided]].sum())


def detection(
    receivers: int, senders: int, noise_db: list[float], *, count: int, vectors: int, steps: int, chip: Chip,
    rule: str = "published", slices: int = 1, seed: int = 3,
) -> dict[str, list[float]]:
    """Return bit error rates of zero forcing, x = (HᴴH)⁻¹ Hᴴ y, by FP32 and by HP-INV after 1 … `steps` shots.

    Args:
        receivers, senders: antennas.
        noise_db: signal-to-noise ratios at a receiving antenna, dB.
        count: channels. vectors: symbol vectors of each channel and ratio.
        steps: INV shots.
        chip, rule, slices: see `Tiles`.
    """
    rng = np.random.default_rng(seed)
    h = channels(count, receivers, senders, rng)
    gram = real_form(np.conj(np.swapaxes(h, 1, 2)) @ h / receivers)
    tiles = Tiles(gram, chip, rule, slices, seed)
    energy = 2.0 * float(np.mean(LEVELS**2))
    names = ["FP32"] + [f"{k} shot{'s' if k > 1 else ''}" for k in range(1, steps + 1)]
    rates: dict[str, list[float]] = {name: [] for name in names}
    inverse = np.linalg.inv(gram.astype(np.float32))
    for ratio in noise_db:
        wrong = dict.fromkeys(names, 0)
        deviation = np.sqrt(energy * senders * 10.0 ** (-ratio / 10.0) / 2.0)
        for _ in range(vectors):
            sent = rng.integers(0, 16, (count, 2 * senders))
            amplitude = LEVELS[sent]
            symbols = amplitude[:, :senders] + 1j * amplitude[:, senders:]
            y = np.einsum("krs,ks->kr", h, symbols)
            y += deviation * (rng.standard_normal(y.shape) + 1j * rng.standard_normal(y.shape))
            matched = np.einsum("krs,kr->ks", h.conj(), y) / receivers
            right = np.concatenate([matched.real, matched.imag], axis=1)
            wrong["FP32"] += bit_errors(sent, np.einsum("kij,kj->ki", inverse, right.astype(np.float32)))
            x = refine(gram, right, tiles, steps, 24)
            for k in range(1, steps + 1):
                wrong[names[k]] += bit_errors(sent, x[k])
        for name in names:
            rates[name].append(wrong[name] / (vectors * count * senders * 8.0))
    return rates


def draw(curves: dict[str, list[Convergence]], shots: dict[str, Any], mimo: dict[str, Any]) -> None:
    """Write the figures."""
    drawn, axes = figure(5)
    marks = {SMALL: ((3, 1e-3),), LARGE: ((10, 1e-7),), STAGES: ((10, 1e-7),), COMPLEX: ((10, 1e-7),)}
    for axis, (name, runs) in zip(axes, curves.items(), strict=True):
        for run, colour in zip(runs, (INK["published"], INK["grey"], INK["other"], INK["ours"]), strict=True):
            low, high = np.quantile(run.errors, (0.1, 0.9), axis=1)
            steps = np.arange(len(run.median))
            axis.fill_between(steps, low, np.minimum(high, 1e3), color=colour, alpha=0.15, linewidth=0)
            axis.semilogy(steps, run.median, color=colour, marker=".", label=run.title)
        for step, value in marks.get(name, ()):
            axis.plot(step, value, marker="*", markersize=13, color="black", linestyle="none", label="paper")
        axis.semilogy(steps, 8.0**-steps, color=INK["grey"], linestyle=":", label="3 bits a step")
        axis.set(title="\n".join(name.rsplit(", ", 1)), xlabel="steps", ylim=(1e-9, 10.0), xlim=(0, STEPS + 0.5))
    axes[0].set_ylabel("relative error of x")
    axes[0].legend(fontsize=7, loc="upper right")
    save(drawn, "pku2025_convergence.png")
    drawn, axes = figure(3)
    for k, (name, data) in enumerate(shots.items()):
        values = np.sort(data["matrix"])
        axes[0].semilogx(values, np.linspace(0, 1, len(values)), color=f"C{k // 2}", linestyle="-" if k % 2 else "--",
                         label=name.partition(": ")[2] if k % 2 else None)
    axes[0].set(title="one INV shot", xlabel="relative error of x", ylabel="share of matrices", xlim=(1e-3, 3.0),
                ylim=(0.0, 1.3))
    axes[0].legend(fontsize=7, loc="upper left")
    shown = {name: runs for name, runs in mimo.items() if name[1] == "nearest level (paper)"}
    for axis, ((name, _), (ratios, rates)) in zip(axes[1:], shown.items(), strict=True):
        for k, (label, values) in enumerate(rates.items()):
            style = {"color": "black", "linewidth": 2.5, "alpha": 0.5} if label == "FP32" else {
                "color": f"C{k - 1}", "marker": ".", "linestyle": "--"}
            axis.semilogy(ratios, np.maximum(values, 1e-7), label=label, **style)
        axis.set(title=f"MIMO {name}, 256-QAM", xlabel="SNR at a receiving antenna, dB", ylabel="bit error rate",
                 ylim=(1e-6, 1.0))
        axis.legend(fontsize=7)
    save(drawn, "pku2025_mimo.png")


def shots_needed(rates: dict[str, list[float]], level: float) -> str:
    """Return after how many shots the bit error rate is FP32's within 10 %, wherever FP32's is above a level."""
    reference = np.array(rates["FP32"])
    asked = reference >= level
    for k, (label, values) in enumerate(rates.items()):
        if label != "FP32" and (np.array(values) <= 1.1 * reference)[asked].all():
            return str(k)
    return f"more than {len(rates) - 1}"


def text(
    curves: dict[str, list[Convergence]], shots: dict[str, Any], mimo: dict[str, Any], conditions: list[list[str]],
) -> str:
    """Return the section of the page."""
    rows = []
    published = {SMALL: "1e-3 after 3 steps [second-hand]", LARGE: "1e-7 within 10 steps, about 3 bits a step [read]",
                 STAGES: "", COMPLEX: "as 16 × 16 [read]", GRAM: "—"}
    for name, runs in curves.items():
        for run in runs:
            m = run.median
            unstable = f", {run.unstable} of {run.errors.shape[1]} circuits unstable" if run.unstable else ""
            rows.append([name, run.title + unstable, f"{m[3]:.1e}", f"{m[10]:.1e}", f"{run.bits:.1f}",
                         published[name] if run is runs[0] else ""])
    parts = [table(["case", "programming", "error after 3", "after 10", "bits a step", "paper"], rows), ""]
    parts += [table(["condition; bits a step, error after ten", "4 × 4, 12 bits, one array", "16 × 16 on 8 × 8",
                     "16 × 16 on 4 × 4"], conditions), ""]
    rows = [[name, f"{np.median(data['matrix']):.1%}", f"{np.median(data['circuit']):.1%}"]
            for name, data in shots.items()]
    parts += [table(["one INV shot", "error against A⁻¹b, median", "against A0⁻¹b: the circuit alone"], rows), ""]
    rows = [[name, rule, {"16 × 4": "2", "128 × 8": "3"}[name] if "paper" in rule else "",
             *(shots_needed(rates, level) for level in (1e-1, 2e-2, 2e-3, 1e-4))]
            for (name, rule), (_, rates) in mimo.items()]
    parts.append(table(["MIMO, 256-QAM", "programming", "steps to FP32's bit error rate, paper", "ours, down to 1e-1",
                        "to 2e-2", "to 2e-3", "to 1e-4"], rows))
    return "\n".join(parts)


def main() -> int:
    """Run, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples; only print")
    quick = parser.parse_args().quick
    curves = all_convergences(40 if quick else 400)
    shots = single_shots(100 if quick else 1000)
    chip = load_chip("pku2025").replace(tile_size=8)
    size = {"count": 50 if quick else 400, "vectors": 5 if quick else 40}
    mimo = {}
    for name, (receivers, senders), ratios in (("16 × 4", (16, 4), [6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0, 26.0]),
                                               ("128 × 8", (128, 8), [0.0, 4.0, 9.0, 12.0, 14.0, 16.0, 18.0])):
        for title, rule, slices in (("nearest level (paper)", "published", 1),
                                    ("stable rounding, two slices", "ours", 2)):
            mimo[name, title] = (ratios, detection(receivers, senders, ratios, steps=5, chip=chip, rule=rule,
                                                   slices=slices, **size))
    section = text(curves, shots, mimo, by_condition(40 if quick else 400))
    print(section)
    if not quick:
        draw(curves, shots, mimo)
        write_section("pku2025", section)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
