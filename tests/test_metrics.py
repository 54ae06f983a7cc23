"""What is measured by task, and confusion matrices and curves on their way through a log."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import catalog, metrics


def test_every_task_of_the_catalogue_has_metrics_and_a_headline() -> None:
    assert {m.task for m in catalog.MODELS.values()} <= set(metrics.TASKS)
    assert metrics.headline("detect").key == "map50" and metrics.headline("classify").key == "top1"
    for task, found in metrics.TASKS.items():
        keys = [m.key for m in found]
        assert len(set(keys)) == len(keys) and set(keys) <= set(metrics.KEYS)
        assert metrics.weighed(task) in keys and metrics.task_of(keys) == task
        assert all(len(m.brief) <= 28 and len(m.help) <= 64 and m.title and m.name for m in found)


def test_columns_are_those_of_the_tasks_that_occur() -> None:
    def titles(*tasks: str) -> list[str]:
        return [m.title for m in metrics.columns(tasks)]

    assert titles() == titles("detect") == ["mAP50", "50-95", "P", "R"]
    assert titles("classify") == ["top-1", "top-5", "P", "R"]
    assert titles("classify", "detect") == ["mAP50", "50-95", "top-1", "top-5", "P", "R"]


def test_what_is_not_known_is_taken_for_detection() -> None:
    assert metrics.of("dream") == metrics.DETECT and metrics.task_of(["loss"]) == ""


def test_a_confusion_of_many_classes_keeps_its_worst_and_its_sums() -> None:
    """Of five labels three rows: 1 and 3 are confused most, the rest are added up."""
    matrix = [[9, 0, 0, 0, 1], [0, 5, 0, 7, 0], [0, 0, 8, 0, 0], [0, 6, 0, 4, 0], [2, 0, 0, 0, 3]]
    found = metrics.confusion("abcde", matrix, 0.5, 0.5, most=3)
    assert found["labels"] == ["b", "d", metrics.OTHERS]
    assert found["matrix"] == [[5, 7, 0], [6, 4, 0], [0, 0, 9 + 1 + 8 + 2 + 3]]
    assert metrics.confusion("abcde", matrix)["matrix"] == matrix


def test_the_largest_confusion_fits_a_line_of_the_log() -> None:
    import json

    from engine.events import MAX_LINE

    names = [f"a class with a long name {i}" for i in range(1200)]
    matrix = [[999_999 if abs(i - j) < 300 else 0 for j in range(1200)] for i in range(1200)]
    found = metrics.confusion(names, matrix)
    assert len(found["labels"]) == metrics.MOST_CLASSES and len(json.dumps(found)) < MAX_LINE / 2
    assert sum(map(sum, found["matrix"])) == sum(map(sum, matrix))


WHOLE: dict[str, Any] = {"labels": ["a", "b"], "matrix": [[1, 0], [2, 3]], "confidence": None, "iou": None}


@pytest.mark.parametrize(
    "change",
    [
        {"labels": "ab"},
        {"labels": []},
        {"labels": ["a", "b", "c"]},
        {"matrix": [[1, 0]]},
        {"matrix": [[1, 0], [2]]},
        {"matrix": [[1, 0], "ab"]},
        {"matrix": [[1, 0], [2, -3]]},
        {"matrix": [[1, 0], [2, 0.5]]},
        {"matrix": [[1, 0], [2, True]]},
        {"matrix": [[1, 0], [2, 10**30]]},
    ],
)
def test_a_confusion_that_is_not_whole_is_none(change: dict[str, Any]) -> None:
    assert metrics.read_confusion(WHOLE) == WHOLE
    assert metrics.read_confusion(WHOLE | {"labels": [1, None]}) == WHOLE | {"labels": ["1", "None"]}
    assert metrics.read_confusion(WHOLE | {"confidence": "high", "iou": 7}) == WHOLE
    assert metrics.read_confusion(WHOLE | change) is None


def test_curves_that_are_not_whole_are_none() -> None:
    line = {"precision": [1.0, 0.5], "f1": [0, 0.5]}
    whole = {"x": [0.0, 1.0], "mean": line, "per_class": [{"name": "a", **line}]}
    assert metrics.read_curves(whole) == whole
    for change in (
        {"x": [0.0]},
        {"x": None},
        {"mean": None},
        {"mean": {"precision": [1.0, 0.5]}},
        {"mean": line | {"f1": [0.0, None]}},
        {"per_class": [{"name": "a"}]},
        {"per_class": ["a"]},
    ):
        assert metrics.read_curves(whole | change) is None


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["labels", "matrix", "x", "mean", "per_class", "precision", "f1", "name", "confidence", "iou"]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)


@given(ANYTHING)
def test_nothing_from_outside_breaks_the_readers(value: Any) -> None:
    metrics.read_confusion(value)
    metrics.read_curves(value)
