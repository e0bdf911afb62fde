"""Fields of the hardware description: each carries its unit, range and meaning, and is checked by them."""

from __future__ import annotations

import dataclasses
import math
from numbers import Real
from typing import Any

from analogpde.errors import InvalidInput, did_you_mean

MOST_COEFFICIENTS = 9


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


def choice(meaning: str, words: tuple[str, ...], *, default: str | None = None, ideal: bool = False) -> Any:
    """Declare a dataclass field that holds one of some words; `ideal`: or None."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "words": words, "ideal": ideal})


def flag(meaning: str) -> Any:
    """Declare a dataclass field that is True or False; False is the default."""
    return dataclasses.field(default=False, metadata={"meaning": meaning, "flag": True, "ideal": False})


def coefficients(meaning: str, *, unit: str = "", most: int = MOST_COEFFICIENTS) -> Any:
    """Declare a dataclass field that holds up to `most` numbers, the coefficients of a polynomial say, or None."""
    return dataclasses.field(default=None, metadata={"meaning": meaning, "unit": unit, "ideal": True, "numbers": most})


def allowed(field: dataclasses.Field[Any]) -> str:
    """Return the allowed values of a field made by `quantity` or `choice`, in words."""
    data = field.metadata
    if "flag" in data:
        return "true | false"
    if "numbers" in data:
        return f"1 to {data['numbers']} numbers, or null"
    if "words" in data:
        return " | ".join(data["words"]) + (" | null (ideal)" if data["ideal"] else "")
    noun = "an integer" if data["integer"] else "a number"
    words = f"{noun} from {data['low']:g} to {data['high']:g}" + (f" {data['unit']}" if data["unit"] else "")
    return words + (", or null (ideal)" if data["ideal"] else "")


def check(owner: Any, where: str) -> None:
    """Check every declared field of a dataclass instance, and store whole numbers of integer fields as int.

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
        if "flag" in data:
            if not isinstance(value, bool):
                raise InvalidInput(f"{where}{field.name}", value, allowed(field))
            continue
        if "numbers" in data:
            good = isinstance(value, list | tuple) and 0 < len(value) <= data["numbers"] and all(
                isinstance(c, Real) and not isinstance(c, bool) and math.isfinite(c) for c in value)
            if not good:
                raise InvalidInput(f"{where}{field.name}", value, allowed(field))
            object.__setattr__(owner, field.name, tuple(float(c) for c in value))
            continue
        if "words" in data:
            if value not in data["words"]:
                near = did_you_mean(value, data["words"]) if isinstance(value, str) else ""
                raise InvalidInput(f"{where}{field.name}", value, allowed(field), near)
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
    for field in dataclasses.fields(kind):
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in data:
            raise InvalidInput(f"{where}{field.name}", "nothing", "a value")
    try:
        return kind(**data)
    except InvalidInput as error:
        if not where:
            raise
        # say which part of the chip it is: dac.bits, not converter.bits
        raise InvalidInput(where + error.what.rpartition(".")[2], error.got, error.allowed, error.remedy) from None
    except TypeError as error:
        raise InvalidInput(where.rstrip(".") or "chip", data, str(error)) from None
