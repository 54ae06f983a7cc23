"""The spec: everything that defines one training, declared once.

The wizard's form, `dojang schema`, the checks and `spec.toml` all come from the fields declared here. A field's metadata
says where the form shows it, its unit, and what happens when it is too small or too large.
"""

from __future__ import annotations

from engine.spec.checks import parse, parse_label, problems
from engine.spec.fields import field
from engine.spec.label import NAME_LENGTH, TAG_LENGTH, Label
from engine.spec.resolved import advice, resolved_optimizer
from engine.spec.whole import Spec, changed, choices, default_of, property_of, range_text, schema, to_toml

__all__ = [
    "NAME_LENGTH",
    "TAG_LENGTH",
    "Label",
    "Spec",
    "advice",
    "changed",
    "choices",
    "default_of",
    "field",
    "parse",
    "parse_label",
    "problems",
    "property_of",
    "range_text",
    "resolved_optimizer",
    "schema",
    "to_toml",
]
