"""mAP, precision and recall as ultralytics counts them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from ultralytics.models.yolo.detect.val import DetectionValidator
from ultralytics.utils import nms

from engine.training.session import Evaluation

NMS_SECONDS = 600.0  # an image; upstream's limit of 0.05 makes metrics depend on how busy the machine is
NAMES = {"map50": "mAP50(B)", "map50_95": "mAP50-95(B)", "precision": "precision(B)", "recall": "recall(B)"}


class Judge(DetectionValidator):
    """ultralytics' metrics, batch by batch, without its loop or its limit on time."""

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

    def verdict(self, split: str, images: int, classes: tuple[str, ...], losses: dict[str, float]) -> Evaluation:
        """What all batches come to, rounded to five places as upstream rounds: fitness too, by which the best is chosen."""
        stats = self.get_stats()
        judged = self.metrics.nt_per_class.sum() > 0  # without a single label no metric means anything
        return Evaluation(
            split=split,
            images=images,
            metrics={
                ours: round(float(stats[f"metrics/{theirs}"]), 5) if judged else None for ours, theirs in NAMES.items()
            },
            per_class=_per_class(self.metrics, classes),
            fitness=round(float(stats["fitness"]), 5),
            losses={name: round(value, 5) for name, value in losses.items()},
        )


def _per_class(metrics: Any, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every class; one without labels in the split has no metrics."""
    rows = {int(cls): metrics.class_result(i) for i, cls in enumerate(metrics.ap_class_index)}
    found = []
    for number, name in enumerate(classes):
        row = rows.get(number)
        precision, recall, map50, map50_95 = (round(float(v), 5) for v in row) if row else (None,) * 4
        found.append(
            {
                "name": name,
                "map50": map50,
                "map50_95": map50_95,
                "precision": precision,
                "recall": recall,
                "images": int(metrics.nt_per_image[number]),
                "labels": int(metrics.nt_per_class[number]),
            }
        )
    return found
