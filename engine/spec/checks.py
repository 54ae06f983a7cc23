"""Everything wrong with a spec at once, in plain words."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from engine.errors import Invalid, Problem
from engine.spec.label import Label
from engine.spec.whole import Spec, choices, property_of, range_text


def problems(data: dict[str, Any], model: type[BaseModel] = Spec) -> list[Problem]:
    """Everything wrong with `data`, one Problem a field, in the order of the form. Empty when it is a spec."""
    try:
        model.model_validate(data)
    except ValidationError as e:
        return [_plain(error, model) for error in e.errors(include_url=False)]
    return []


def parse(data: dict[str, Any]) -> Spec:
    """The spec in `data`. Raises Invalid with every problem at once."""
    found = problems(data)
    if found:
        raise Invalid(found)
    return Spec.model_validate(data)


def parse_label(data: dict[str, Any]) -> Label:
    """The label in `data`. Raises Invalid with every problem at once."""
    found = problems(data, Label)
    if found:
        raise Invalid(found, code="BAD_LABEL")
    return Label.model_validate(data)


def _plain(error: Any, model: type[BaseModel]) -> Problem:
    """pydantic's words, in ours: what is allowed, and what was given."""
    name = str(error["loc"][0]) if error["loc"] else "spec"
    given, context, kind = error.get("input"), error.get("ctx", {}), error["type"]
    limits = range_text(name, model)
    if kind == "extra_forbidden":
        import difflib

        close = difflib.get_close_matches(name, model.model_fields, 1)
        return Problem(name, "is not a setting" + (f"; did you mean {close[0]}?" if close else ""))
    if kind == "missing":
        return Problem(name, "is missing")
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return Problem(name, f"must be {limits}, not {given}")
    if kind.startswith(("int_", "float_")) or kind == "finite_number":
        what = "a whole number" if kind.startswith("int_") else "a number"
        return Problem(name, f"must be {what}{f', {limits}' if limits else ''}, not {given!r}")
    if kind == "literal_error":
        return Problem(name, f"must be one of {', '.join(choices(name, model))}, not {given!r}")
    if kind.startswith("bool_"):
        return Problem(name, f"must be true or false, not {given!r}")
    if kind == "string_pattern_mismatch":
        return Problem(name, f"must be {property_of(name, model)['pattern_text']}, not {given!r}")
    if kind == "string_type":
        return Problem(name, f"must be text, not {given!r}")
    if kind in ("string_too_long", "string_too_short"):
        bound = context.get("max_length", context.get("min_length"))
        return Problem(name, f"must have at {'most' if 'max_length' in context else 'least'} {bound} characters")
    if kind == "value_error":
        return Problem(name, str(context.get("error", error["msg"])))
    return Problem(name, str(error["msg"])[:1].lower() + str(error["msg"])[1:])
