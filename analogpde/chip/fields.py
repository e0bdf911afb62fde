"""Fields of the hardware description: each carries its unit, range and meaning, and is checked by them."""

from __future__ import annotations

import dataclasses
import math
from numbers import Real
from typing import Any

from analogpde.errors import InvalidInput, did_you_mean


def quantity(
    meaning: str, *, unit: str = "", low: float, high: float, default: Any = dataclasses.MISSING, integer: bool = False,
    ideal: bool = False,
) -> Any:
    """Declare a dataclass field with its meaning, unit and inclusive range.

    Args:
        meaning: what the number is, in one sentence.
        unit: SI unit, or '' for a plain number.
        low, high: inclusive range.
        default: the default value.
        integer: whether only integers are allowed.
        ideal: whether None (no such error) is allowed.
    """
    metadata = {"meaning": meaning, "unit": unit, "low": low, "high": high, "integer": integer, "ideal": ideal}
    return dataclasses.field(default=default, metadata=metadata)


def allowed(field: dataclasses.Field[Any]) -> str:
    """Return the allowed values of a field made by `quantity`, in words."""
    data = field.metadata
    noun = "an integer" if data["integer"] else "a number"
    words = f"{noun} from {data['low']:g} to {data['high']:g}" + (f" {data['unit']}" if data["unit"] else "")
    return words + (", or null (ideal)" if data["ideal"] else "")


def check(owner: Any, where: str) -> None:
    """Check every `quantity` field of a dataclass instance, and store whole numbers of integer fields as int.

    Raises:
        InvalidInput: naming the field, its value and the allowed range.
    """
    for field in dataclasses.fields(owner):
        data = field.metadata
        if "meaning" not in data:
            continue
        value = getattr(owner, field.name)
        if value is None and data["ideal"]:
            continue
        number = isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
        if not number or not data["low"] <= value <= data["high"] or (data["integer"] and value != int(value)):
            remedy = "Write null (or `none`) for an ideal one." if data["ideal"] and number and value <= 0 else ""
            raise InvalidInput(f"{where}{field.name}", value, allowed(field), remedy)
        # JSON writers may say 64.0, NumPy programs pass np.int64: one type from here on
        object.__setattr__(owner, field.name, int(value) if data["integer"] else float(value))


def refuse_unknown(kind: type, data: dict[str, Any], where: str) -> None:
    """Refuse a key that is no field of a dataclass.

    Raises:
        InvalidInput: with the nearest known one.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    for key in data:
        if key not in names:
            raise InvalidInput(f"{where}{key}", data[key], "the fields " + ", ".join(names), did_you_mean(key, names))


def from_mapping(kind: type, data: Any, where: str) -> Any:
    """Build a flat dataclass from a JSON object.

    Raises:
        InvalidInput: not an object, or an unknown key (with the nearest known one).
    """
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(data, dict):
        raise InvalidInput(where.rstrip(".") or "chip", data, "a JSON object with " + ", ".join(names))
    refuse_unknown(kind, data, where)
    try:
        return kind(**data)
    except InvalidInput as error:  # say which part of the chip it is: dac.bits, not converter.bits
        raise InvalidInput(where + error.what.rpartition(".")[2], error.got, error.allowed, error.remedy) from None
    except TypeError as error:
        raise InvalidInput(where.rstrip(".") or "chip", data, str(error)) from None
