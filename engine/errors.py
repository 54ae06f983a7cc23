"""Errors meant for the person: what is wrong, where, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass


class DojangError(ValueError):
    """A problem the person can act on. `code` is stable for scripts; `message` says what and where; `hint` what to do."""

    def __init__(self, message: str, *, code: str = "ERROR", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.hint = message, code, hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class NotFound(DojangError):
    """A dataset, version or project of that name does not exist."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, code="NOT_FOUND", hint=hint)


class Invalid(DojangError):
    """Several problems at once, keyed by field, so that all of them can be shown."""

    def __init__(self, problems: list[Problem], *, code: str = "BAD_SPEC") -> None:
        super().__init__("\n".join(f"{p.field}: {p.message}" for p in problems), code=code)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field."""

    field: str
    message: str
