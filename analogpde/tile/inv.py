"""Banks of closed-loop INV tiles: program once, shoot often.

One shot of a tile, in the order of the circuit: the host scales the input (diagonal scaling, block
exponent), DACs round it, the loop settles to x = (Ĝ + E)⁻¹ b with the conductance noise E of this shot,
ADCs round the output, the host scales back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analogpde.chip import Chip
from analogpde.compiled import compiled
from analogpde.cost import Ledger, settling_unit
from analogpde.errors import ProgrammingFailed
from analogpde.tile.blocks import Blocks
from analogpde.tile.cells import BIAS
from analogpde.tile.dense import Inverses, worth_it
from analogpde.tile.factors import Gathering, Groups, factorise
from analogpde.tile.health import POWER_ITERATION_MARGIN, bias_sway, smallest_singular_value, stable
from analogpde.tile.held import Held
from analogpde.tile.lines import Drawing, Lines
from analogpde.tile.lines import shoot as shoot_lines
from analogpde.tile.loop import Spread, close, compensated, siemens, thinned
from analogpde.tile.noise import Purpose, read_normal, stream
from analogpde.tile.programming import program, scale_blocks
from analogpde.tile.settling import sampling, settling_time

# Noise may be taken to first order, one draw a line, while δ = 2 σ sqrt(cells of the fullest row)/s_min is below
# 0.3; up to 1 every cell is drawn and the noisy system solved; a tile above 1 could lose stability in a shot and is
# programmed again with a larger shift (thresholds measured against explicit draws, docs/circuit.md).
FIRST_ORDER = 0.3
LARGEST_DELTA = 1.0
# A bias column makes a loop unstable where its noise η has 1ᵀĜ⁻¹η ≥ 1: so many deviations of that must fit below 1,
# which leaves 3e-5 of the shots.
LARGEST_SWAY = 4.0
SINGULAR = 2.0**-24  # a unit diagonal and s_min below this: the inverse in FP32 has no correct digit
ATTEMPTS = 8
PATIENCE = 2  # programmings of a faulty tile with growing shift before its block goes to a spare one
_NO_BIAS = np.empty((0, 0), np.float32)
_CHUNK_ENTRIES = 1 << 22  # entries of full tiles worked on at a time; those in use are a tenth


@dataclass
class InvBank:
    """K programmed INV tiles of one chip, worked as one batch.

    Args:
        factors: of each programmed matrix, float32, interleaved.
        sizes: rows in use on each tile, shape (K,).
        kept: output lines that are read, the first ones, shape (K,).
        offsets, row, col, deviation: cells with read noise, by their places in the elimination, and its standard
            deviation (empty if none).
        drawn: tiles whose noise must be drawn cell by cell, shape (K,).
        scale: diagonal scaling of both sides, shape (K, n). sign: of each block, shape (K,).
        tiles: global tile ids, shape (K,).
        chip, seed, word: what keys and sizes the noise.
        programmed: what programming cost.
        shift: mean stability shift; delta: largest δ = 2 σ sqrt(cells of the fullest row)/s_min.
        smallest: smallest singular value measured, of matrices scaled to a unit diagonal; infinite without tiles.
        circuit: what the lines do besides rounding; None if nothing.
        settling: time that a shot takes, s, shape (K,). wire_error: largest error to be expected of the wires'
            approximation, relative.
        name: of the bank, which keys the noise.
        slowness: time of a shot in units of ln 2^(b+1)/(2π GBW), b the bits of the ADCs, shape (K,): 1/λ_min(D⁻¹G),
            from above, D the row conductances with the input's, or `settling` of amplifiers with a bandwidth.
        shared: standard deviation of the bias cells' read noise, which all entries of a row share, shape (K,); empty
            without a bias column.
    """

    factors: Groups
    sizes: NDArray[np.int32]
    kept: NDArray[np.int32]
    offsets: NDArray[np.int64]
    row: NDArray[np.int16]
    col: NDArray[np.int16]
    deviation: NDArray[np.float32]
    drawn: NDArray[np.bool_]
    scale: NDArray[np.float64]
    sign: NDArray[np.float64]
    tiles: NDArray[np.int64]
    chip: Chip
    seed: int
    word: int
    programmed: Ledger
    shift: float
    delta: float
    smallest: float
    dense_solves: int = 0
    circuit: Lines | None = None
    settling: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    wire_error: float = 0.0
    name: str = ""
    slowness: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    shared: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.sizes)

    @property
    def lines(self) -> int:
        """Lines in use over all tiles."""
        return int(self.sizes.sum())

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes; the first shot adds what it arranges for all."""
        held = self.factors.nbytes + sum(a.nbytes for a in (self.row, self.col, self.deviation, self.scale))
        arranged = (self.circuit, self.__dict__.get("_held"), self.__dict__.get("_inverses"))
        return held + sum(part.nbytes for part in arranged if part is not None)

    @property
    def slowest(self) -> float:
        """Time that the slowest tile takes to settle, s."""
        return float(self.settling.max(initial=0.0))

    def shoot(self, x: NDArray[np.float64], event: int, *, transposed: bool = False) -> Ledger:
        """Let every tile settle once, in place.

        Args:
            x: right-hand sides on entry, solutions on return, shape (K, n), float64. Entries beyond the
                lines in use are ignored, those beyond the lines read keep the right-hand side.
            event: number of this shot; the same number draws the same noise.
            transposed: drive the columns and read all the rows: x ← Ĝ⁻ᵀ b. What is not `kept` of x must be zero: these
                lines are not driven.

        Returns:
            The operations of this application.
        """
        read = self.sizes if transposed else self.kept
        driven = self.kept if transposed else self.sizes
        if self.circuit is not None and self.count:
            return self._through_lines(self.circuit, x, event, driven, read, transposed)
        key = self.seed, self.word, self.tiles, event
        codes = self.chip.dac.codes, self.chip.adc.codes
        if self._inverses is not None:
            self._inverses.shoot(x, read, self.scale, self.sign, np.ones(self.count, bool), codes, key, self.sizes,
                                 transposed, self._bias_noise(event, ""))
        elif self.count:
            self.dense_solves += self._held.shoot(x, read, self.scale, self.sign, codes, key, transposed,
                                                  self._bias_noise(event, ""))
        return Ledger(**vars(self._once[transposed]))

    def _through_lines(
        self, circuit: Lines, x: NDArray[np.float64], event: int, driven: NDArray[np.int32], read: NDArray[np.int32],
        transposed: bool,
    ) -> Ledger:
        """Let every tile settle once, with all that its lines do."""
        ones, same = self._ones

        def settle(volts: NDArray[np.float64], which: NDArray[np.bool_], repeat: int) -> None:
            again = stream(Purpose.READ, f"{self.name}~{repeat}") if repeat else self.word
            bias = self._bias_noise(event, f"~{repeat}" if repeat else "")
            key = self.seed, again, self.tiles, event
            if self._inverses is not None:
                self._inverses.shoot(volts, self.sizes, ones, same, which, (0, 0), key, self.sizes, transposed,
                                     bias)
            else:
                self.dense_solves += self._held.shoot(volts, self.sizes, ones, same, (0, 0), key, transposed, bias,
                                                      which)

        repeats = shoot_lines(circuit, self.chip, x, settle,
                              Drawing(self.seed, self.name, self.tiles, self.sizes, event), scale=self.scale,
                              sign=self.sign, driven=driven, read=read, transposed=transposed)
        lines = Ledger(**vars(self._once[transposed]))
        again = int(repeats.sum())
        if again:
            lines.inv_repeats = again
            lines.inv_shots += again
            lines.dac_conversions += int(repeats @ driven)
            lines.adc_conversions += int(repeats @ read)
            for repeat in range(int(repeats.max())):
                lines.add(self._load(repeats > repeat))
        return lines

    def _bias_noise(self, event: int, repeat: str) -> NDArray[np.float32]:
        """Draw what the bias cells of each row read in this shot, shape (K, n); no rows without a bias column."""
        if not self.shared.any():
            return _NO_BIAS
        ends = np.concatenate(([0], np.cumsum(self.sizes))).astype(np.int64)
        out = np.zeros(self.scale.shape, np.float32)
        out[np.arange(out.shape[1]) < self.sizes[:, None]] = read_normal(
            ends, seed=self.seed, word=stream(Purpose.READ, self.name + repeat + BIAS), tiles=self.tiles, event=event)
        out *= self.shared[:, None]
        return out

    @cached_property
    def _inverses(self) -> Inverses | None:
        """Inverses, where the tiles' matrices are full and products are faster than substitutions.

        Not where every shot has a matrix of its own; and not for ideal cells and wires, where factors are as exact as
        FP32 can be.
        """
        noisy = np.diff(self.offsets) > 0
        if (self.chip.wire.ideal and not noisy.any()) or (self.drawn & noisy).any() or not worth_it(self.factors):
            return None
        return Inverses(self.factors, self.offsets, self.row, self.col, self.deviation)

    @cached_property
    def _held(self) -> Held:
        """What a shot with stored factors or drawn cells needs."""
        return Held.of(self.factors, self.offsets, self.row, self.col, self.deviation, self.drawn,
                       self.smallest)

    @cached_property
    def _ones(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scaling and sign of loops whose lines work in volts."""
        return np.ones_like(self.scale), np.ones(self.count)

    @cached_property
    def load(self) -> Ledger:
        """What one application asks of amplifiers and time, whichever way it goes."""
        return self._load(np.ones(self.count, bool))

    @cached_property
    def _once(self) -> tuple[Ledger, Ledger]:
        """The operations of an application in which no line clips, and of a transposed one."""
        lines, read = int(self.sizes.sum()), int(self.kept.sum())
        forth = Ledger(inv_shots=self.count, dac_conversions=lines, adc_conversions=read)
        back = Ledger(inv_shots=self.count, dac_conversions=read, adc_conversions=lines)
        return forth + self.load, back + self.load

    def _load(self, which: NDArray[np.bool_]) -> Ledger:
        """Return what one shot of some tiles asks of amplifiers and time."""
        if not which.any():
            return Ledger()
        sizes, slowness = self.sizes[which], self.slowness[which]
        return Ledger(
            inv_products=int(sizes.astype(np.int64) @ self.kept[which]), rounds=1,
            settling_seconds=float(self.settling[which].sum()), amplifier_settlings=float(sizes @ slowness),
            round_settlings=float(slowness.max()))


@compiled
def _row_figures(offsets, row, value, noise, sizes, fullest, loudest, heaviest, silent):  # type: ignore[no-untyped-def]
    """Find each block's largest count of cells in a row, largest noise, and largest and smallest sum of |value|."""
    count, total = np.empty(fullest.size and sizes.max(), np.int64), np.empty(fullest.size and sizes.max())
    for k in range(sizes.size):
        count[: sizes[k]], total[: sizes[k]] = 0, 0.0
        loudest[k] = fullest[k] = heaviest[k] = 0.0
        silent[k] = False
        for e in range(offsets[k], offsets[k + 1]):
            count[row[e]] += 1
            total[row[e]] += abs(value[e])
            loudest[k] = max(loudest[k], noise[e])
        for i in range(sizes[k]):
            fullest[k], heaviest[k] = max(fullest[k], count[i]), max(heaviest[k], total[i])
            silent[k] = silent[k] or total[i] == 0.0


def _chunks(count: int, size: int, entries: int) -> Iterator[NDArray[np.int64]]:
    step = max(1, entries // max(1, size * size))
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count))


def program_bank(
    blocks: Blocks, chip: Chip, *, slices: int = 1, shift: float = 0.5, seed: int = 0, name: str = "", event: int = 0,
    kept: NDArray[np.int32] | None = None, intended: NDArray[np.float64] | None = None,
) -> InvBank:
    """Program blocks on INV tiles, test every tile's stability, and program unstable ones again.

    Args:
        blocks: what to program, at most `chip.tile_size` rows each.
        chip: the chip.
        slices, shift: see `analogpde.tile.programming.program`.
        seed, name, event: key of the noise; `event` counts programmings of the same tiles.
        kept: output lines to read of each tile, the first ones; None reads all. The block exponent of the
            ADCs then follows the lines that matter.
        intended: filled with the entries that programming aimed at, in the units of the blocks, shape (E,).

    Raises:
        ProgrammingFailed: a block is too large, has an unusable diagonal, or stays unstable with every shift.
    """
    if blocks.size > chip.tile_size:
        raise ProgrammingFailed(f"a block of {blocks.size} rows does not fit a tile of {chip.tile_size}.")
    scaled, scale, sign = scale_blocks(blocks)
    given = None
    if chip.cell.crowded:  # cells of zeros make noise too
        scaled, given = scaled.full()
    aims = np.empty(len(scaled.value)) if intended is not None and given is not None else intended
    n, count = blocks.size, blocks.count
    read = not chip.quiet
    gathering = Gathering(scaled.sizes, n)
    deviation = np.zeros(len(scaled.value) if read else 0, np.float32)
    drawn = np.zeros(count, bool)
    shared = np.zeros(count)
    final_shift, final_delta, final_smallest = np.zeros(count), np.zeros(count), np.zeros(count)
    settling, wire_error, circuits = np.zeros(count), 0.0, []
    closed = not (chip.ideal_loop and chip.ideal_lines and chip.amplifier.gain_bandwidth is None)
    slowness = np.zeros(count)
    ledger = Ledger()
    crowded = not chip.wire.ideal or chip.inverter.gain_bandwidth is not None  # some ten full matrices a tile
    for chunk in _chunks(count, n, _CHUNK_ENTRIES // 8 if crowded else _CHUNK_ENTRIES):
        pending, extra, spare = chunk, np.zeros(len(chunk)), np.zeros(len(chunk), np.int64)
        moved = 0
        for attempt in range(ATTEMPTS):
            part = scaled.select(pending)
            lowered = compensated(part, chip)
            held = program(lowered, scale[pending], sign[pending], chip, slices=slices, shift=shift, extra_shift=extra,
                           seed=seed, name=name, event=event * ATTEMPTS + attempt, spare=spare)
            matrix, loop, noise = held.blocks, None, held.read_deviation
            if closed:
                spread = Spread.draw(part, chip, seed=seed, name=name)
                loop = close(held, chip, spread)
                matrix, noise = loop.blocks, noise * loop.passed
                if loop.load.ndim == 3:
                    matrix = thinned(matrix, held.blocks)
            trial = factorise(matrix, cells=held.blocks)
            fullest, loudest, heaviest = np.empty((3, len(pending)))
            silent = np.empty(len(pending), bool)
            _row_figures(part.offsets, part.row, held.blocks.value, noise, part.sizes, fullest, loudest, heaviest,
                         silent)
            smallest = smallest_singular_value(trial) / POWER_ITERATION_MARGIN
            loudest *= np.sqrt(fullest)
            if not chip.cell.plain:  # cells differ: what a row really adds up to
                rows = np.bincount(part.owner * np.int64(n) + part.row, held.read_deviation**2, len(pending) * n)
                loudest = np.sqrt(rows.reshape(-1, n).max(axis=1, initial=0.0))
            with np.errstate(divide="ignore", invalid="ignore"):  # 0 of a singular tile
                delta = np.where(smallest > 0, 2.0 * loudest / smallest, np.inf)
            if held.shared.any():
                delta = np.maximum(delta, LARGEST_SWAY * bias_sway(trial, held.shared))
            good = trial.regular & (delta <= LARGEST_DELTA) & (smallest > SINGULAR)
            good &= stable(matrix, trial, loop, chip)  # ideal cells too: they make no circuit stable that is not
            if chip.faults.any:  # a line without a cell, which the finite gain alone would hold
                good &= ~silent
            done = pending[good]
            kept_factors = trial.select(good)
            gathering.add(done, kept_factors)
            drawn[done] = delta[good] > FIRST_ORDER
            shared[done] = held.shared[good]
            # through what the input drives a row: as large as the diagonal, where the chip does not say
            driven = chip.amplifier.input_conductance
            beside = np.ones(len(pending)) if driven is None else driven / siemens(held, chip)
            slowness[done] = (beside + heaviest)[good] / smallest[good]
            final_shift[done], final_delta[done], final_smallest[done] = held.shift[good], delta[good], smallest[good]
            if loop is not None and good.any():
                chosen = np.flatnonzero(good)
                loop = loop.select(chosen)
                settling[done] = settling_time(loop, kept_factors, chip)
                if chip.amplifier.gain_bandwidth is not None:
                    slowness[done] = settling[done] / settling_unit(chip.amplifier.gain_bandwidth, chip.adc.bits)
                wire_error = max(wire_error, float(loop.wire_error.max()))
                if not chip.ideal_lines:
                    sampled = sampling(loop, chip)
                    circuits.append((done, Lines.of(loop, kept_factors, spread.select(chosen), chip, sampled)))
            if read or aims is not None:
                target, here = scaled.entries(done), part.entries(np.flatnonzero(good))
                if read:
                    deviation[target] = noise[here]
                if aims is not None:
                    k = np.repeat(done, np.diff(scaled.offsets)[done])
                    scales = scale[k, part.row[here]] * scale[k, part.col[here]] * sign[k]
                    aims[target] = (held.intended + (part.value - lowered.value))[here] / scales
            ledger.add(Ledger(cells_written=held.cells, tiles_programmed=len(pending),
                              tiles_reprogrammed=len(pending) if attempt else 0,
                              tiles_replaced=moved, write_pulses=held.written.pulses,
                              pulses_in_turn=held.written.in_turn))
            if good.all():
                break
            # what is missing to δ = 1, and at least twice what was there, so that the loop ends
            over = np.isfinite(delta) & (delta > LARGEST_DELTA)
            missing = np.where(over, (np.where(over, delta, 0.0) - 0.9) * smallest, 0.0)
            least = np.full(len(pending), 0.01)
            if chip.faults.any:  # in place of a tile with a line that carries no current a spare one may do as it is
                replaced = (silent | (attempt >= PATIENCE)) & (spare < chip.faults.spares)
                least = np.where(silent & replaced, 0.0, 0.01)
                spare, moved = (spare + replaced)[~good], int(np.count_nonzero(replaced & ~good))
            else:
                spare = spare[~good]
            extra = np.maximum(np.maximum(2.0 * extra, least), extra + missing)[~good]
            pending = pending[~good]
        else:
            if chip.faults.any and silent.any():
                raise ProgrammingFailed(
                    f"tile {int(scaled.tiles[pending[0]])}: {len(pending)} tile(s) are dead, have too few lines that "
                    f"work or stay unstable, and so do up to {chip.faults.spares} spare tiles in the place of each. A "
                    "chip with fewer dead tiles and lines, or more spares (-analog_spares), is needed.")
            raise ProgrammingFailed(
                f"tile {int(scaled.tiles[pending[0]])}: {len(pending)} tile(s) stay unstable after {ATTEMPTS} "
                f"programmings {'on spare tiles ' if chip.faults.any else ''}with growing shift. Try more cell bits, "
                "-pc_analog_slices 2, a smaller tile or less programming error; an indefinite matrix cannot be held by "
                "an INV tile at all.")
    if intended is not None and aims is not None and given is not None:
        intended[:] = aims[given]
    groups = gathering.factors().groups
    offsets = scaled.offsets if read else np.zeros(count + 1, np.int64)
    cells = slice(None) if read else slice(0, 0)
    row, col = groups.places(offsets, scaled.row[cells], scaled.col[cells])
    return InvBank(
        groups, scaled.sizes, scaled.sizes if kept is None else kept, offsets, row, col, deviation, drawn, scale, sign,
        scaled.tiles, chip, seed, stream(Purpose.READ, name), ledger,
        shift=float(final_shift.mean()) if count else 0.0, delta=float(final_delta.max(initial=0.0)),
        smallest=float(final_smallest.min(initial=np.inf)), circuit=Lines.gather(circuits) if circuits else None,
        slowness=slowness, settling=settling, wire_error=wire_error, name=name,
        shared=shared if shared.any() else np.zeros(0))
