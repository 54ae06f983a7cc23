"""How good a detector is: mAP, precision, recall and F1 as ultralytics counts them, for every kernel that detects.

Its `DetMetrics` matches boxes and averages precision over 101 recalls, as COCO does. It differs from COCO's own
program in three ways: between two points of the curve it draws a straight line where COCO takes a step (about 0.001
of mAP lower); it takes an image's `max_det` surest detections of all classes, COCO 100 of each; and it knows no
regions to ignore.

Precision, recall and F1 hold for one threshold of confidence: the one at which the mean F1 of the classes, smoothed,
is highest. It is part of the result, as they mean nothing without it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.models.yolo.detect.val import DetectionValidator
from ultralytics.utils import nms
from ultralytics.utils.metrics import ConfusionMatrix, smooth

from engine import metrics
from engine.training.session import Evaluation

NMS_SECONDS = 600.0  # an image; upstream's limit of 0.05 makes metrics depend on how busy the machine is
NAMES = {"map50": "mAP50(B)", "map50_95": "mAP50-95(B)", "precision": "precision(B)", "recall": "recall(B)"}
OVERLAP = 0.5  # from which on a box counts as found, in precision, recall, F1 and the confusion matrix
POINTS = np.linspace(0, 999, 101).round().astype(int)  # of upstream's 1000 of a curve, those that are kept
MOST_CURVES = 100  # classes with curves of their own; of more, only their mean is kept


class Judge(DetectionValidator):
    """ultralytics' metrics, batch by batch, without its loop or its limit on time."""

    def init_metrics(self, model: Any) -> None:
        super().init_metrics(model)
        self._pairs: list[
            tuple[Tensor, Tensor]
        ] = []  # an image's (x, y, x, y, confidence, class) and (x, y, x, y, class)

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        found = nms.non_max_suppression(
            preds,
            self.args.conf,
            self.args.iou,
            multi_label=True,
            max_det=self.args.max_det,
            max_time_img=NMS_SECONDS,
        )
        return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in found]

    def _process_batch(self, preds: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """One image; kept for the confusion matrix, whose threshold only all images together tell."""
        found = torch.cat([preds["bboxes"].float(), preds["conf"].float()[:, None], preds["cls"].float()[:, None]], 1)
        there = torch.cat([batch["bboxes"].float().view(-1, 4), batch["cls"].float()[:, None]], 1)
        self._pairs.append((found.cpu(), there.cpu()))
        matched: dict[str, np.ndarray] = super()._process_batch(preds, batch)
        return matched

    def verdict(self, split: str, images: int, classes: tuple[str, ...], losses: dict[str, float]) -> Evaluation:
        """What all batches come to, rounded to five places as upstream rounds: fitness too, by which the best is chosen."""
        raw = {name: np.concatenate(self.metrics.stats[name]) for name in ("tp", "conf", "pred_cls")}
        stats = self.get_stats()
        judged = self.metrics.nt_per_class.sum() > 0  # without a single label no metric means anything
        confidence = self._confidence() if judged else None
        found = {ours: round(float(stats[f"metrics/{theirs}"]), 5) for ours, theirs in NAMES.items()}
        found["f1"] = round(float(np.mean(self.metrics.box.f1)), 5) if judged else 0.0
        return Evaluation(
            split=split,
            images=images,
            metrics={name: value if judged else None for name, value in found.items()},
            per_class=_per_class(self.metrics, classes, raw, confidence),
            fitness=round(float(stats["fitness"]), 5),
            losses={name: round(value, 5) for name, value in losses.items()},
            confidence=None if confidence is None else round(confidence, 5),
            confusion=None if confidence is None else self._confusion(classes, confidence),
            curves=_curves(self.metrics.box, classes) if judged else None,
        )

    def _confidence(self) -> float:
        """Where upstream quotes precision, recall and F1."""
        box = self.metrics.box
        return float(box.px[smooth(box.f1_curve.mean(0), 0.1).argmax()])

    def _confusion(self, classes: tuple[str, ...], confidence: float) -> dict[str, Any]:
        """What was taken for what: the surest boxes first claim the object that they overlap most, of whatever class."""
        counts = ConfusionMatrix(dict(enumerate(classes)))
        for found, there in self._pairs:
            detections = {"bboxes": found[:, :4], "conf": found[:, 4], "cls": found[:, 5]}
            counts.process_batch(detections, {"bboxes": there[:, :4], "cls": there[:, 4]}, confidence, OVERLAP)
        rows = counts.matrix.T.astype(int).tolist()  # upstream's rows are predictions
        return metrics.confusion([*classes, "background"], rows, round(confidence, 5), OVERLAP)


def _per_class(
    found: Any, classes: tuple[str, ...], raw: dict[str, np.ndarray], confidence: float | None
) -> list[dict[str, Any]]:
    """Every class; one without labels in the split has no metrics.

    `tp`, `fp` and `fn` are counted at `confidence`. Precision and recall are upstream's, which interpolates between
    the confidences of two detections, so that of few objects they are not quite the counts' ratio.
    """
    index = {int(cls): i for i, cls in enumerate(found.ap_class_index)}
    sure = raw["conf"] >= (2 if confidence is None else confidence)
    rows = []
    for number, name in enumerate(classes):
        i = index.get(number)
        values = (None,) * 5 if i is None else (*found.class_result(i), found.box.f1[i])
        precision, recall, map50, map50_95, f1 = (None if v is None else round(float(v), 5) for v in values)
        drawn = sure & (raw["pred_cls"] == number)
        labels, tp = int(found.nt_per_class[number]), int(raw["tp"][drawn, 0].sum())
        rows.append(
            {
                "name": name,
                "map50": map50,
                "map50_95": map50_95,
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "tp": tp,
                "fp": int(drawn.sum()) - tp,
                "fn": labels - tp,
                "images": int(found.nt_per_image[number]),
                "labels": labels,
            }
        )
    return rows


def _curves(box: Any, classes: tuple[str, ...]) -> dict[str, Any]:
    """Precision at 101 recalls and F1 at 101 confidences, both 0 … 1: the mean of all classes, and each with labels."""
    precision, f1 = box.prec_values[:, POINTS], box.f1_curve[:, POINTS]
    names = [classes[int(number)] for number in box.ap_class_index]
    each = zip(names, precision, f1, strict=True) if len(names) <= MOST_CURVES else ()
    return {
        "x": _short(box.px[POINTS]),
        "mean": {"precision": _short(precision.mean(0)), "f1": _short(f1.mean(0))},
        "per_class": [{"name": name, "precision": _short(p), "f1": _short(f)} for name, p, f in each],
    }


def _short(values: np.ndarray) -> list[float]:
    return [round(float(v), 3) for v in values]
