"""Vectors of eight numbers for compiled kernels, one for each of eight tiles that are worked side by side.

Numba vectorises plain loops; it does not keep eight sums in one register across a loop. These few operations on LLVM's
vector type do, on any machine: LLVM splits the vectors where registers are shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import PrimitiveModel
from numba.extending import intrinsic, register_model

LANES = 8  # tiles solved side by side, one in each float of a vector register
PHILOX_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57  # and Weyl increments of Philox4x32 (Salmon et al., SC 2011, table 2)
PHILOX_INCREMENTS = 0x9E3779B9, 0xBB67AE85


class _Lanes(types.Type):
    """Numba's type of a vector of `LANES` numbers of one kind, float32 or float64."""

    def __init__(self, kind: types.Float) -> None:
        self.kind = kind
        super().__init__(name=f"lanes({kind})")


@register_model(_Lanes)
class _LanesModel(PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Any) -> None:
        number = ir.FloatType() if fe_type.kind == types.float32 else ir.DoubleType()
        super().__init__(manager, fe_type, ir.VectorType(number, LANES))  # type: ignore[no-untyped-call]


def _operation(generator: Callable[..., Any]) -> Any:
    """Make an operation that kernels call without the first argument, `typing`."""
    return intrinsic(generator)


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return the address of row `arguments[1]` of a contiguous array of shape (m, LANES)."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    place = builder.mul(arguments[1], ir.Constant(arguments[1].type, LANES))
    vector = context.get_value_type(_Lanes(signature.args[0].dtype))
    return builder.bitcast(builder.gep(array.data, [place]), vector.as_pointer())


def _of_llvm(builder: Any, name: str, arguments: list[Any]) -> Any:
    """Call LLVM's own operation of that name."""
    vector = arguments[0].type
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    operation = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, ir.FunctionType(vector, [vector] * len(arguments)), f"llvm.{name}.v{LANES}f{bits}")
    return builder.call(operation, arguments)


@_operation
def load(typing: Any, array: Any, row: Any) -> Any:
    """Return row `row` of an array of shape (m, LANES), float32 or float64."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments), align=array.dtype.bitwidth // 8)

    return _Lanes(array.dtype)(array, types.intp), generate


@_operation
def store(typing: Any, array: Any, row: Any, value: Any) -> Any:
    """Write row `row` of an array of shape (m, LANES)."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(context, builder, signature, arguments), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@_operation
def minus_product(typing: Any, value: Any, left: Any, right: Any) -> Any:
    """Return value − left · right, rounded once where the processor can."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _of_llvm(builder, "fmuladd", [builder.fneg(arguments[1]), arguments[2], arguments[0]])

    return value(value, left, right), generate


@_operation
def minus(typing: Any, left: Any, right: Any) -> Any:
    """Return left − right."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fsub(*arguments)

    return left(left, right), generate


@_operation
def product(typing: Any, left: Any, right: Any) -> Any:
    """Return left · right."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments)

    return left(left, right), generate


@_operation
def reciprocal(typing: Any, value: Any) -> Any:
    """Return 1/value."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fdiv(ir.Constant(arguments[0].type, [1.0] * LANES), arguments[0])

    return value(value), generate


@_operation
def larger(typing: Any, sum_: Any, value: Any) -> Any:
    """Return the larger of `sum_` and |value|; `sum_` where that is not a number."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        magnitude = _of_llvm(builder, "fabs", [arguments[1]])
        return builder.select(builder.fcmp_ordered(">", magnitude, arguments[0]), magnitude, arguments[0])

    return sum_(sum_, value), generate


@_operation
def store_random(
    typing: Any, words: Any, blocks: Any, block: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any,
) -> Any:
    """Write the words of Philox4x32-10 for the counters block … block + 7 to words[s · blocks + block], s = 0 … 3.

    The loop that `analogpde.tile.kernels.philox` would need is not always made one of vectors.

    Args:
        words: uint32, at least 4 · blocks of them. c1, c2, c3, k0, k1: other words of the counter and the key, below
            2^32.
    """
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, lanes = ir.IntType(64), ir.VectorType(ir.IntType(64), LANES)
        short = ir.VectorType(ir.IntType(32), LANES)

        def splat(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(short, [0] * LANES)
            return builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), zeros)

        def every(value: int) -> Any:
            return ir.Constant(lanes, [value] * LANES)

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        low, half, mask = every(0xFFFFFFFF), every(32), ir.Constant(number, 0xFFFFFFFF)
        c0 = builder.add(splat(arguments[2]), ir.Constant(lanes, list(range(LANES))))
        c0, c1, c2, c3 = builder.and_(c0, low), *(splat(builder.and_(word, mask)) for word in arguments[3:6])
        k0, k1 = (builder.and_(word, mask) for word in arguments[6:])
        for _ in range(10):
            p0 = builder.mul(every(PHILOX_MULTIPLIERS[0]), builder.and_(c0, low))
            p1 = builder.mul(every(PHILOX_MULTIPLIERS[1]), builder.and_(c2, low))
            c0, c1 = builder.xor(builder.xor(builder.lshr(p1, half), c1), splat(k0)), builder.and_(p1, low)
            c2, c3 = builder.xor(builder.xor(builder.lshr(p0, half), c3), splat(k1)), builder.and_(p0, low)
            k0 = builder.and_(builder.add(k0, ir.Constant(number, PHILOX_INCREMENTS[0])), mask)
            k1 = builder.and_(builder.add(k1, ir.Constant(number, PHILOX_INCREMENTS[1])), mask)
        for row, word in enumerate((c0, c1, c2, c3)):
            place = builder.add(builder.mul(arguments[1], ir.Constant(number, row)), arguments[2])
            builder.store(builder.trunc(word, short), builder.bitcast(builder.gep(array.data, [place]),
                                                                      short.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.intp, *(types.uint64,) * 5), generate
