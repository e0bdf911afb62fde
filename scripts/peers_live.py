"""CrossSim and aihwkit as they are importable: the products of `bench_tiles.py` on theirs, same matrices and settings.

CrossSim (Sandia, https://github.com/sandialabs/cross-sim) is not on PyPI: put a checkout on PYTHONPATH. aihwkit (IBM)
is. Neither is needed by anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Product = Callable[[], list[Array]]


def _largest(matrices: list[Array], shares: list[Array]) -> float:
    """Return the largest output of matrices in ±1 for inputs in ±1: where ADCs are calibrated to."""
    return float(max(np.abs(m @ s).max() for m, s in zip(matrices, shares, strict=True)))


def crosssim(
    matrices: list[Array], vectors: list[Array], *, digits: list[Array] | None = None, error: float | None = None,
    read: float | None = None, wire: float | None = None, converters: int | None = 8, tile: int | None = None,
) -> Product | None:
    """Return products on CrossSim's cores, balanced pairs of cells; None if it cannot be imported.

    Args:
        matrices, vectors: one of each for a product.
        digits: signed digits of the matrices in three slices of three bits, each with ADCs of its own; None: one cell
            of seven bits and a sign.
        error, read: of each cell, fraction of the largest conductance. wire: Ω a segment, on cells of 10 kΩ.
        converters: bits; None: ideal. tile: largest array; None: as large as the matrices.
    """
    try:
        from simulator import AnalogCore, CrossSimParameters
        from simulator.parameters.core_parameters import CoreStyle
        from simulator.parameters.xbar_parameters import ADCRangeLimits
    except ImportError:
        return None
    parameters = CrossSimParameters()
    core, device, array = parameters.core, parameters.xbar.device, parameters.xbar.array
    for mapping in (core.mapping.weights, core.mapping.inputs.mvm):  # the largest entry is the full scale
        mapping.min = mapping.max = None
        mapping.percentile = 1.0
    device.infinite_on_off_ratio, device.Rmin = True, 10e3
    for kind, size in ((device.programming_error, error), (device.read_noise, read)):
        if size:
            kind.enable, kind.model, kind.magnitude = True, "NormalIndependentDevice", size
    if wire:
        array.parasitics.enable, array.parasitics.Rp_row, array.parasitics.Rp_col = True, wire, wire
    if tile:
        core.rows_max = core.cols_max = tile
    shares = [v / np.abs(v).max() for v in vectors]
    if digits is None:
        core.weight_bits, device.cell_bits = 8, 7
        top = _largest([m / np.abs(m).max() for m in matrices], shares)
        ranges: list[Any] = [-top, top]
    else:
        core.style, core.bit_sliced.num_slices = CoreStyle.BITSLICED, 3
        core.weight_bits, device.cell_bits = 10, 3  # the sign is a bit
        top = max(_largest([m / 7.0 for m in part], shares) for part in digits)
        ranges = [[-top, top]] * 3
    if converters:
        for converter, model in ((parameters.xbar.dac, "QuantizerDAC"), (parameters.xbar.adc, "QuantizerADC")):
            converter.mvm.model = converter.vmm.model = model  # which makes new parameters of them
            converter.mvm.bits = converter.vmm.bits = converters
        for way in (parameters.xbar.adc.mvm, parameters.xbar.adc.vmm):
            way.adc_range_option, way.calibrated_range = ADCRangeLimits.CALIBRATED, ranges
    cores = [AnalogCore(m, params=parameters) for m in matrices]
    return lambda: [one @ v for one, v in zip(cores, vectors, strict=True)]


def aihwkit(
    held: list[Array], vectors: list[Array], *, read: float | None = None, converters: int = 8,
) -> Product | None:
    """Return products on aihwkit's C++ inference tiles, DACs scaled to each vector; None if it is not there.

    Its programming errors are of one PCM device each and redrawn by its own rule: what is `held` is programmed exactly.

    Args:
        held: what the cells hold, errors included. vectors: one for each product.
        read: of a pair, fraction of the largest weight: noise of σ |x| a line. converters: bits.
    """
    try:
        import torch
        from aihwkit.nn import AnalogLinear
        from aihwkit.simulator.configs import InferenceRPUConfig
        from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType, WeightNoiseType
    except ImportError:
        return None
    torch.set_num_threads(1)
    reach = float(max(np.abs(m @ v).max() / np.abs(v).max() for m, v in zip(held, vectors, strict=True)))
    layers = []
    try:
        for matrix in held:
            settings = InferenceRPUConfig()
            settings.mapping.weight_scaling_omega = 0.0  # entries in ±1 as they are
            way = settings.forward
            way.is_perfect, way.inp_noise, way.out_noise, way.w_noise = False, 0.0, 0.0, read or 0.0
            way.inp_res = way.out_res = 1.0 / (2**converters - 2)
            way.inp_bound, way.out_bound = 1.0, reach
            way.noise_management, way.bound_management = NoiseManagementType.ABS_MAX, BoundManagementType.NONE
            way.w_noise_type = WeightNoiseType.ADDITIVE_CONSTANT if read else WeightNoiseType.NONE
            layer = AnalogLinear(matrix.shape[1], matrix.shape[0], bias=False, rpu_config=settings)
            layer.set_weights(torch.tensor(matrix, dtype=torch.float32))
            layers.append(layer.eval())
    except RuntimeError as trouble:  # built for another version of torch
        print(f"aihwkit does not run here: {str(trouble).splitlines()[0]}", file=sys.stderr)
        return None
    inputs = [torch.tensor(v, dtype=torch.float32)[None] for v in vectors]

    def products() -> list[Array]:
        with torch.no_grad():
            return [layer(v).numpy()[0] for layer, v in zip(layers, inputs, strict=True)]

    return products
