"""Strangers' JSON: the same elements whatever the size of the chunks, and no file that does harm."""

from __future__ import annotations

import json
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.datasets import jsonstream
from engine.datasets.files import Unreadable
from engine.datasets.jsonstream import load, stream
from tests.datasets.make import put

numbers = st.integers(-(10**12), 10**12) | st.decimals(-1000, 1000, places=3).map(float)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def plain(value: Any) -> Any:
    """The value with its decimals as the floats that they were."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value


@given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.integers(1, 40), st.booleans(), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, data: dict[str, Any], chunk: int, spaced: bool, bom: bool) -> None:
    text = json.dumps(data, ensure_ascii=spaced, indent=2 if spaced else None)
    path = put(tmp_path / "a.json", ("\ufeff" if bom else "") + text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonstream, "CHUNK", chunk)
        found = [(key, number, plain(element)) for key, number, element in stream(path)]
    expected = [(k, n, e) for k, v in data.items() if isinstance(v, list) for n, e in enumerate(v, 1)]
    assert found == expected
    assert plain(load(path.read_bytes())) == data


@given(st.binary(max_size=60) | st.text(alphabet='{}[]:,"\\ae1. ', max_size=40).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_elements_or_unreadable(tmp_path: Path, data: bytes) -> None:
    try:
        list(stream(put(tmp_path / "a.json", data)))
        streamed = True
    except Unreadable:
        streamed = False
    try:
        whole = isinstance(load(data), dict)
    except Unreadable:
        whole = False
    assert streamed == whole, "both read the same language"


BROKEN = [
    "", "[]", "{", '{"a"', '{"a" 1}', '{"a":}', '{"a":1,}', '{a:1}', '{"a":[1,]}', '{"a":[1 2]}', '{"a":[1', '{"a":1} x',
    '{"a":' + "[" * 100_000, '{"a":[' + '{"a":' * 100_000, '{"a":[' + "9" * 5000 + "]}", '{"a":[1e999999999999999999999]}',
    '{"a":"\udcff"}',
]  # fmt: skip


@pytest.mark.parametrize("text", BROKEN)
def test_broken_files_are_refused(tmp_path: Path, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    with pytest.raises(Unreadable) as error:
        list(stream(put(tmp_path / "a.json", data)))
    assert error.value.code in ("bad_json", "bad_encoding") and len(error.value.message) < 300
    with pytest.raises(Unreadable):
        if isinstance(load(data), list):
            raise Unreadable("bad_json", "not an object")


def test_the_place_of_the_fault_is_told(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", '{"a":[' + '{"x":1},' * 200_000 + "oops]}")
    with pytest.raises(Unreadable, match="character 1,600,007"):
        list(stream(path))


def test_memory_is_that_of_one_element(tmp_path: Path) -> None:
    polygon = ",".join(["123.45"] * 50)
    path = put(
        tmp_path / "a.json", '{"annotations":[' + ",".join(['{"segmentation":[[' + polygon + "]]}"] * 10_000) + "]}"
    )
    assert path.stat().st_size > 3 << 20
    tracemalloc.start()
    assert sum(1 for _ in stream(path)) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
