"""What a training will take before it has begun: memory from measured models, time from earlier versions."""

from __future__ import annotations

from engine import catalog
from engine.spec import Spec

# Bytes that one pixel of one image keeps alive from forward to backward, 32 bits wide: tensors saved by autograd, counted
# on two images with all layers learning.
_ACTIVATIONS = {
    "yolov5n": 448,
    "yolov5s": 836,
    "yolov5m": 1521,
    "yolov5l": 2397,
    "yolov5x": 3474,
    "yolov8n": 470,
    "yolov8s": 881,
    "yolov8m": 1582,
    "yolov8l": 2456,
    "yolov8x": 3067,
    "yolov9t": 662,
    "yolov9s": 1264,
    "yolov9m": 2178,
    "yolov9c": 2809,
    "yolov9e": 5285,
    "yolov10n": 686,
    "yolov10s": 1266,
    "yolov10m": 2225,
    "yolov10b": 2954,
    "yolov10l": 3510,
    "yolov10x": 4836,
    "yolo11n": 543,
    "yolo11s": 1018,
    "yolo11m": 2168,
    "yolo11l": 2785,
    "yolo11x": 4172,
    "yolo12n": 636,
    "yolo12s": 1205,
    "yolo12m": 2402,
    "yolo12l": 3284,
    "yolo12x": 4919,
    "yolo26n": 642,
    "yolo26s": 1225,
    "yolo26m": 2477,
    "yolo26l": 3081,
    "yolo26x": 4616,
    "yolov3": 2859,
    "yolov3-spp": 2885,
    "yolov3-tiny": 567,
    "vgg16": 1470,
    "vgg16_bn": 2551,
    "vgg19": 1574,
    "resnet18": 443,
    "resnet34": 644,
    "resnet50": 1719,
    "resnet101": 2541,
    "efficientnet_b0": 1766,
    "efficientnet_b1": 2461,
    "efficientnet_b2": 2582,
    "efficientnet_b3": 3415,
    "efficientnet_b4": 4509,
    "mobilenet_v3_small": 326,
    "mobilenet_v3_large": 885,
    "convnext_tiny": 2176,
    "convnext_small": 3472,
    "vit_b_16": 2355,
    "efficientdet_d0": 2100,
    "efficientdet_d1": 3006,
    "efficientdet_d2": 3386,
    "efficientdet_d3": 4832,
    "efficientdet_d4": 6711,
    "efficientdet_d5": 9039,
    "efficientdet_d6": 11009,
    "efficientdet_d7": 11009,
}
HALF = 0.62  # of the activations are left with 16-bit arithmetic: norms and losses stay 32 bits wide
FIXED = {"cuda": 0.8, "cpu": 0.9}  # GiB: libraries, their workspaces, loading
FORWARD = 0.15  # of the activations of a frozen backbone, of which nothing is kept
GIB = 2**30
ADAM = ("auto", "Adam", "AdamW", "NAdam", "RAdam")


def memory(spec: Spec, on_gpu: bool) -> float | None:
    """GiB that a training takes on each GPU, or of this machine's memory; None for models not measured.

    Within about a quarter: how many objects the densest batch holds is not known here.
    """
    model = catalog.find(spec.model)
    activations = _ACTIVATIONS.get(model.name)
    if activations is None:
        return None
    learned = 1.0 if spec.settled_freeze == "none" else 0.2
    weights = model.parameters * 1e6 * 4
    moments = 2 if spec.optimizer in ADAM else 1
    held = weights * (2 + learned * (1 + moments))  # the model and its average; gradients and moments of what learns
    half = HALF if on_gpu and spec.amp != "off" else 1.0
    share = 1.0 if spec.settled_freeze == "none" else FORWARD
    images = -(-spec.images_per_step // spec.gpus)
    batch = images * spec.image_size**2 * activations * half * share
    return round((held + batch) / GIB + FIXED["cuda" if on_gpu else "cpu"], 2)
