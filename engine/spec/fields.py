"""How a field of the spec is declared: once, with everything that form, checks and help say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def field(
    section: str,
    label: str,
    help: str,
    *,
    unit: str = "",
    small: str = "",
    large: str = "",
    advanced: bool = False,
    auto: str = "",
    kernels: tuple[str, ...] = (),
    by_kernel: dict[str, float] | None = None,
    when: Mapping[str, Sequence[str]] | None = None,
    zero: str = "",
    pattern_text: str = "",
    **limits: Any,
) -> Any:
    """Metadata of one field. `auto` says in words what an empty value means, where empty is allowed.

    `kernels` are the families of models that have such a setting, where not all do; `by_kernel` is what an empty value
    comes to for each. `when` names other settings, and the values of theirs with which alone this one does anything.
    `zero` says in words what nought means, where that is something of its own; `pattern_text` what a `pattern` allows.
    """
    extra: dict[str, Any] = {
        "section": section,
        "unit": unit,
        "small": small,
        "large": large,
        "advanced": advanced,
        "auto": auto,
        **({"kernels": list(kernels)} if kernels else {}),
        **({"by_kernel": by_kernel} if by_kernel else {}),
        **({"when": {k: list(v) for k, v in when.items()}} if when else {}),
        **({"zero": zero} if zero else {}),
        **({"pattern_text": pattern_text} if pattern_text else {}),
    }
    return Field(title=label, description=help, json_schema_extra=extra, **limits)


class Part(BaseModel):
    """Some fields of the spec. All parts together are `Spec`."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, validate_default=True)
