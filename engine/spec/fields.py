"""How a field of the spec is declared: once, with everything that form, checks and help say of it."""

from __future__ import annotations

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
    pattern_text: str = "",
    **limits: Any,
) -> Any:
    """Metadata of one field. `auto` says in words what an empty value means, where empty is allowed.

    `kernels` are the families of models that have such a setting, where not all do; `by_kernel` is what an empty value
    comes to for each. `pattern_text` says in words what a `pattern` allows.
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
        **({"pattern_text": pattern_text} if pattern_text else {}),
    }
    return Field(title=label, description=help, json_schema_extra=extra, **limits)


class Part(BaseModel):
    """Some fields of the spec. All parts together are `Spec`."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, validate_default=True)
