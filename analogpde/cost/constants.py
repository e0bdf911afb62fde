"""The constants of the cost model: every one with unit, range, source and confidence."""

from __future__ import annotations

from dataclasses import dataclass

_MEMORY = "not read in a source: typical of the literature"
_ISAAC = "ISAAC's components as tabulated by hwcomponents (32 nm)"


@dataclass(frozen=True)
class Constant:
    """One constant.

    Args:
        value: taken. low, high: the range that sensitivity runs over.
        unit: of all three.
        meaning: what it is.
        source: where it comes from.
        confidence: 'published' (read in the source), 'second-hand' (in a summary of it), 'derived' (by this project
            from published figures), 'measured' (by this project) or 'assumed'.
    """

    value: float
    low: float
    high: float
    unit: str
    meaning: str
    source: str
    confidence: str


CONSTANTS: dict[str, Constant] = {
    "supply": Constant(1.1, 0.8, 1.8, "V", "supply of the amplifiers", "40 nm core supply; 0.8 V advanced, 1.8 V I/O",
                       "assumed"),
    "amplifier_load": Constant(0.5e-12, 0.2e-12, 2e-12, "F", "capacitance that an amplifier drives",
                               "a line of 64 to 256 cells", "assumed"),
    "amplifier_merit": Constant(0.6, 0.2, 1.5, "Hz F/A", "gain–bandwidth times load over supply current",
                                "two-stage OTA, 600 MHz pF/mA; " + _MEMORY, "assumed"),
    "bandwidth": Constant(80e6, 16e6, 2e9, "Hz", "gain–bandwidth product that a settled tile shows",
                          "calibrated to the 120 ns of the 2025 chip's INV; AD823 16 MHz, OPA690 500 MHz, integrated "
                          "amplifiers beyond", "derived"),
    "amplifiers": Constant(2.0, 1.0, 3.0, "1", "amplifiers of a line", "one, and one inverter for the negative "
                           "entries", "derived"),
    "cell_voltage": Constant(0.15, 0.05, 0.3, "V", "across a cell while a tile settles", "0.1–0.2 V is customary",
                             "assumed"),
    "cells_of_a_line": Constant(8.0, 4.0, 64.0, "1", "cells of a line that are on", "5-point stencil 5, dense coarse "
                                "levels 60", "derived"),
    "mvm_settling": Constant(60e-9, 10e-9, 200e-9, "s", "settling of an open-loop array", "2025 chip's MVM response, "
                             "from a summary of the paper", "second-hand"),
    "adc": Constant(1.67e-12, 0.5e-12, 5e-12, "J", "8-bit conversion; other widths in proportion to ISAAC's table",
                    _ISAAC + "; Accelergy's fit gives 2.6 pJ at 40 nm, Murmann's median of 23 fJ a step 5.9 pJ",
                    "published"),
    "dac": Constant(0.75e-12, 0.4e-12, 2e-12, "J", "input conversion",
                    "ISAAC's 1-bit driver 0.42 pJ; 4–6 bits 0.5–1 pJ", "derived"),
    "adc_share": Constant(8.0, 1.0, 64.0, "1", "lines that share an ADC", "NeuroSim multiplexes 8", "published"),
    "adc_time": Constant(1e-9, 0.5e-9, 10e-9, "s", "conversion", "ISAAC 1.2 GS/s", "published"),
    "shift_add": Constant(0.021e-12, 0.01e-12, 0.1e-12, "J", "16-bit addition beside a converter", _ISAAC, "published"),
    "network": Constant(0.215e-12, 0.05e-12, 1e-12, "J/bit", "a value's way between host and tile on chip",
                        _ISAAC + ": eDRAM 0.080, router 0.081, bus 0.054 pJ/bit", "published"),
    "link": Constant(5e-12, 1e-12, 50e-12, "J/bit", "between chips and ranks",
                     "1–2 pJ/bit in a package, 5–10 beyond; ISAAC's HyperTransport about 50", "assumed"),
    "pulses": Constant(1.0, 0.35, 3.5, "1", "write–verify pulses over those of the emulated loop",
                       "the loop is calibrated to NeuRRAM's 8.5 of a cell (8.52 µs at 1 µs a pulse, CiMLoop's model); "
                       "3 to 30 are met", "derived"),
    "pulse_energy": Constant(140e-12, 10e-12, 400e-12, "J", "write pulse with its verify read",
                             "1.75 V × 80 µA × 1 µs (NeuRRAM)", "derived"),
    "pulse_time": Constant(1.1e-6, 0.06e-6, 10e-6, "s", "write pulse with its verify read",
                           "NeuRRAM 1 µs; NeuroSim 50 ns + 10 ns", "published"),
    "cell_area": Constant(0.05e-12, 0.02e-12, 1e-12, "m²", "cell with its transistor", "4F × 12F at 32 nm (NeuroSim)",
                          "published"),
    "amplifier_area": Constant(500e-12, 100e-12, 5000e-12, "m²", "amplifier", _MEMORY, "assumed"),
    "adc_area": Constant(1200e-12, 300e-12, 5000e-12, "m²", "8-bit ADC", _ISAAC, "published"),
    "hbm_byte": Constant(210e-12, 50e-12, 257e-12, "J/B", "streaming from HBM, all of the device's power",
                         "H100 SXM 700 W over 3.35 TB/s; DRAM device alone about 31", "derived"),
    "hbm_bandwidth": Constant(3.35e12 * 0.8, 3.35e12 * 0.5, 3.35e12 * 0.95, "B/s", "of an H100",
                              "data sheet 3.35 TB/s at 80 % (50–95 %)", "derived"),
    "gpu_flop": Constant(15e-12, 10e-12, 20e-12, "J/flop", "FP64", "H100 700 W over 34–67 Tflop/s", "derived"),
    "gpu_rate": Constant(34e12, 10e12, 67e12, "flop/s", "FP64", "H100 data sheet", "published"),
    "kernel": Constant(4e-6, 1e-6, 10e-6, "s", "launch of a GPU kernel, or a reduction", _MEMORY, "assumed"),
    "gpu_idle": Constant(150.0, 70.0, 350.0, "W", "power of a GPU while it waits for launches", _MEMORY, "assumed"),
    "launches": Constant(4.0, 2.0, 10.0, "1", "GPU kernels of the host for each round of tiles",
                         "product, residual, transfer, update", "derived"),
    "sram_byte": Constant(0.64e-12, 0.3e-12, 3e-12, "J/B", "memory beside the arithmetic",
                          _ISAAC + ": eDRAM 0.080 pJ/bit", "published"),
    "sram_bandwidth": Constant(100e12, 10e12, 1000e12, "B/s", "of all memories of a device together",
                               "Graphcore 47, Groq 80 TB/s, a wafer 10 PB/s; " + _MEMORY, "assumed"),
    "host_flop": Constant(2.5e-12, 1e-12, 10e-12, "J/flop", "FP64 beside SRAM", "320 FMA in 0.5–1 nJ, with margin",
                          "derived"),
    "mac": Constant(0.5e-12, 0.24e-12, 3.7e-12, "J", "multiply–add of a stored inverse, its read included",
                    "64 × 64 GEMV 1–15 nJ from INT8 to FP32, SRAM-resident; FP16 near 1 pJ", "derived"),
    "mac_rate": Constant(200e12, 20e12, 2000e12, "1/s", "of a device, INT8 or FP16 GEMV",
                         "SRAM bandwidth over a byte or two", "derived"),
    "inversion_flop": Constant(1e-12, 0.3e-12, 10e-12, "J/flop", "digital inversion of a block at set-up",
                               "FP32 matrix units; " + _MEMORY, "assumed"),
    "gamg_iterations": Constant(12.0, 8.0, 25.0, "1", "iterations of CG + GAMG, where it was not run",
                                "10 to 14 to FP32-equivalent for Poisson, heat and vorticity at 10⁴ to 10⁶ unknowns; "
                                "harder matrices take more", "measured"),
    "gamg_work": Constant(10.0, 8.0, 14.0, "1", "products with the matrix in an iteration, where it was not run",
                          "9 to 11 in the same solves", "measured"),
}

# Energy of a conversion relative to 8 bits: ISAAC's ADC at 4, 6, 8, 10 bits, Accelergy's fit (4^b) above.
ADC_BITS = {2: 0.3, 4: 0.47, 6: 0.72, 8: 1.0, 10: 1.43, 12: 12.6, 14: 130.0, 16: 2080.0}
