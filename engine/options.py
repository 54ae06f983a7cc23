"""A kernel's own settings: a small part of JSON Schema, read safely, shown in the form and held against what is given.

An object of properties, each a number, an integer, text or yes/no, with title, description, minimum, maximum, enum and
default. Nothing else is understood, and what is not understood is refused: a limit that is not kept is worse than none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Value = bool | int | float | str
TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "boolean": ("true or false", (bool,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "string": ("text", (str,)),
}
KEYS = {"type", "title", "description", "minimum", "maximum", "enum", "default"}
OBJECT_KEYS = {"$schema", "type", "title", "description", "properties", "required", "additionalProperties"}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
MOST = 100  # options of one kernel
LONGEST = 4096  # characters of a text
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Options:
    """The settings that a kernel declares: JSON Schema by name, and which have to be given."""

    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    @property
    def defaults(self) -> dict[str, Value]:
        return {name: one["default"] for name, one in self.properties.items() if "default" in one}

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the object they make."""
        found: dict[str, Any] = {
            "type": "object",
            "properties": {name: dict(one) for name, one in self.properties.items()},
            "additionalProperties": False,
        }
        return {**found, "required": sorted(self.required)} if self.required else found

    def settle(self, given: Any) -> dict[str, Value]:
        """What is given, each as its type, with the defaults of the rest. Raises ValueError with all that is wrong.

        Text that spells a value of the declared type is taken for it: so do options on a command line come.
        """
        if not isinstance(given, Mapping):
            raise ValueError("must be a table of this model's own settings")
        wrong, found = [], self.defaults
        for name, value in given.items():
            one = self.properties.get(str(name))
            if one is None:
                wrong.append(f"{str(name)[:64]!r} is not one of them{self._meant(str(name))}")
                continue
            if value is None:  # emptied: back to its default
                continue
            try:
                found[str(name)] = checked(one, value)
            except ValueError as e:
                wrong.append(f"{name} {e}")
        wrong += [f"{name} is missing" for name in sorted(self.required - found.keys())]
        if wrong:
            raise ValueError("; ".join(wrong[:10]))
        return {name: found[name] for name in self.properties if name in found}

    def _meant(self, name: str) -> str:
        import difflib

        close = difflib.get_close_matches(name, self.properties, 1)
        return f"; did you mean {close[0]}?" if close else f": there are {', '.join(self.properties) or 'none'}"


def checked(one: Mapping[str, Any], value: Any) -> Value:
    """`value` as the property `one` has it. Raises ValueError that says what is allowed."""
    found = _typed(str(one["type"]), value)
    if found is None:
        raise ValueError(f"must be {TYPES[one['type']][0]}, not {str(value)[:80]!r}")
    allowed = one.get("enum")
    if allowed is not None and found not in allowed:
        raise ValueError(f"must be one of {', '.join(str(a) for a in allowed)}, not {str(value)[:80]!r}")
    if isinstance(found, str):
        if len(found) > LONGEST or not found.isprintable():
            raise ValueError(f"must be printable, of at most {LONGEST} characters")
        return found
    low, high = one.get("minimum"), one.get("maximum")
    if (low is not None and found < low) or (high is not None and found > high):
        limits = (
            f"{low} – {high}" if None not in (low, high) else f"at least {low}" if high is None else f"at most {high}"
        )
        raise ValueError(f"must be {limits}, not {value}")
    return found


def _typed(kind: str, value: Any) -> Value | None:
    """`value` as a value of that type, None where it is none."""
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "boolean":
        text = value.strip().lower() if isinstance(value, str) else None
        return value if isinstance(value, bool) else True if text in YES else False if text in NO else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
        if not math.isfinite(number):
            return None
        if kind == "integer":
            whole = int(value) if isinstance(value, (int, str)) else int(number)
            return whole if whole == number and abs(whole) < 2**53 else None
        return int(value) if isinstance(value, int) else number
    except (TypeError, ValueError, OverflowError):
        return None


def given(value: Any) -> Any:
    """A table as it was typed in one line: `depth = 3, colour = red`, or JSON. Anything else is left as it is."""
    if not isinstance(value, str):
        return {} if value is None else value
    if value.strip().startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as e:
            raise ValueError("must be name = value, with commas between") from e
    parts = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(sign and name.strip() for name, sign, _ in parts):
        raise ValueError("must be name = value, with commas between")
    return {name.strip(): text.strip() for name, _, text in parts}


def typed(values: Mapping[str, Value]) -> str:
    """The same the other way: a table in one line, that `given` reads back unless a text holds a comma."""
    words = {name: str(v).lower() if isinstance(v, bool) else str(v) for name, v in values.items()}
    if any("," in word or word != word.strip() for word in words.values()):
        return json.dumps(dict(values), ensure_ascii=False)
    return ", ".join(f"{name} = {word}" for name, word in words.items())


def read(schema: Any) -> Options:
    """The options that a JSON Schema declares. Raises ValueError with everything in it that is not understood."""
    if not isinstance(schema, Mapping):
        raise ValueError("must be a JSON Schema: a table with properties")
    wrong = _unknown(schema, OBJECT_KEYS, "")
    if schema.get("type", "object") != "object":
        wrong.append("type must be object")
    if schema.get("additionalProperties", False) is not False:
        wrong.append("additionalProperties must be false: what is not declared cannot be checked")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or len(properties) > MOST:
        raise ValueError("; ".join([*wrong, f"properties must be a table of at most {MOST}"]))
    found = {}
    for name, one in properties.items():
        bad = [] if isinstance(name, str) and NAME.fullmatch(name) else ["must begin with a letter; letters, digits, _"]
        bad += _property(one)
        wrong += [f"{str(name)[:64]}: {text}" for text in bad]
        if not bad:
            found[name] = dict(one)
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(r, str) and r in properties for r in required):
        wrong.append("required must be a list of names out of properties")
    if wrong:
        raise ValueError("; ".join(wrong[:10]))
    return Options(found, frozenset(required))


def _property(one: Any) -> list[str]:
    """What is wrong with the declaration of one option."""
    if not isinstance(one, Mapping):
        return ["must be a table with a type"]
    kind = one.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        return [f"type must be one of {', '.join(TYPES)}"]
    wrong = _unknown(one, KEYS, "")
    for key in ("title", "description"):
        text = one.get(key, "")
        if not isinstance(text, str) or not text.isprintable() or len(text) > 1000:
            wrong.append(f"{key} must be one line of text")
    bare: dict[str, Any] = {"type": kind}
    for key in ("minimum", "maximum"):
        if key in one:
            value = one[key]
            if kind not in ("number", "integer") or _typed("number", value) is None or isinstance(value, str):
                wrong.append(f"{key} must be a number, of a number")
            else:
                bare[key] = value
    if "minimum" in bare and "maximum" in bare and bare["minimum"] > bare["maximum"]:
        wrong.append("minimum is above maximum")
    return wrong + _values(one, bare)


def _values(one: Mapping[str, Any], bare: dict[str, Any]) -> list[str]:
    """What is wrong with the values that a declaration names itself."""
    wrong, types = [], TYPES[bare["type"]][1]

    def fits(value: Any) -> bool:
        if not isinstance(value, types) or (isinstance(value, bool) and bare["type"] != "boolean"):
            return False
        try:
            checked(bare, value)
        except ValueError:
            return False
        return True

    if "enum" in one:
        allowed = one["enum"]
        if not isinstance(allowed, list) or not 0 < len(allowed) <= MOST or not all(map(fits, allowed)):
            wrong.append("enum must be a list of values of its type")
        else:
            bare["enum"] = allowed
    if "default" in one and not fits(one["default"]):
        wrong.append("default must be a value that is allowed itself")
    return wrong


def _unknown(given: Mapping[str, Any], known: set[str], what: str) -> list[str]:
    return [f"{what}{str(key)[:64]!r} is not understood here" for key in given if key not in known]
