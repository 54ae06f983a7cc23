"""What a person calls a version."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, field_validator

from engine.spec.fields import field

TAG_LENGTH = 20
NAME_LENGTH = 64


class Label(BaseModel):
    """What a person calls a version. Unlike the spec it may change at any time."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: Annotated[
        str,
        field(
            "Name and tags",
            "Name",
            "A name of your own; left empty, the version's number is its name.",
            max_length=NAME_LENGTH,
        ),
    ] = ""
    tags: Annotated[
        tuple[str, ...],
        field(
            "Name and tags",
            "Tags",
            f"Words to find it by, with commas between; at most {TAG_LENGTH} characters each.",
            max_length=20,
        ),
    ] = ()
    memo: Annotated[
        str,
        field("Name and tags", "Memo", "Anything you want to remember about this version.", max_length=2000),
    ] = ""

    @field_validator("name", "memo", mode="before")
    @classmethod
    def _composed(cls, value: Any) -> Any:
        return unicodedata.normalize("NFC", value) if isinstance(value, str) else value

    @field_validator("name", "memo")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("must not hold control characters")
        return value

    @field_validator("name")
    @classmethod
    def _not_a_number(cls, value: str) -> str:
        if re.fullmatch(r"V_\d+", value, re.IGNORECASE):
            raise ValueError(f"“{value}” is how versions are numbered; choose another name")
        return value

    @field_validator("tags", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)) or not all(isinstance(p, str) for p in given):
            return value
        parts = (unicodedata.normalize("NFC", p).strip().lstrip("#").strip() for text in given for p in text.split(","))
        return tuple(dict.fromkeys(p for p in parts if p))

    @field_validator("tags")
    @classmethod
    def _short(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for tag in value:
            if len(tag) > TAG_LENGTH:
                raise ValueError(f"“{tag}” has {len(tag)} characters; a tag has at most {TAG_LENGTH}")
            if not tag.isprintable():
                raise ValueError("a tag must not hold control characters")
        return value
