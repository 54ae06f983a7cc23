"""What computes, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from engine.spec.fields import Part, field


class Machine(Part):
    """What computes, and how."""

    device: Annotated[
        str,
        field(
            "Machine",
            "Device",
            "auto takes the GPU with the most free memory, else the CPU. Or cpu, cuda:0, cuda:1 …, mps.",
            pattern=r"^(auto|cpu|mps|cuda:\d{1,2})$",
            pattern_text="auto, cpu, mps or cuda:N",
        ),
    ] = "auto"
    gpus: Annotated[
        int,
        field(
            "Machine",
            "GPUs",
            "How many GPUs share each batch, from the device on. On a CPU: how many processes.",
            ge=1,
            le=64,
        ),
    ] = 1
    workers: Annotated[
        int | None,
        field(
            "Machine",
            "Workers",
            "Processes that load and augment images. 0 does it within the training itself.",
            small="a fast GPU waits for images",
            large="memory and cores are wasted",
            auto="0 on CPU, 8 on GPU",
            ge=0,
            le=64,
        ),
    ] = None
    cache: Annotated[
        Literal["auto", "off", "ram"],
        field(
            "Machine",
            "Keep images",
            "Decoded, scaled images kept in memory: what a quarter of the free memory holds (auto), three quarters (ram), or "
            "none (off).",
            advanced=True,
        ),
    ] = "auto"
    save_minutes: Annotated[
        float,
        field(
            "Machine",
            "Save every",
            "A checkpoint is written after each epoch and, within long ones, after so many minutes. 0: after epochs only.",
            unit="minutes",
            advanced=True,
            ge=0,
            le=1440,
            zero="after epochs only",
        ),
    ] = 10.0
    deterministic: Annotated[
        bool,
        field(
            "Machine",
            "Deterministic",
            "On a GPU, use only arithmetic that gives the same result each time. Off is a little faster.",
            advanced=True,
        ),
    ] = True
    amp: Annotated[
        Literal["auto", "off", "fp16", "bf16"],
        field(
            "Machine",
            "Mixed precision",
            "Half-width arithmetic where it is safe: faster, less memory. auto: fp16 on CUDA, off on a CPU.",
            advanced=True,
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        field("Machine", "CPU threads", "Threads for arithmetic.", auto="all cores", advanced=True, ge=1, le=1024),
    ] = None
    exact_resume: Annotated[
        bool,
        field(
            "Machine",
            "Exact resume",
            "Draws all randomness from counters, so that a stopped training goes on exactly as if it had not been. "
            "Off, the random order is ultralytics' own; YOLO only.",
            kernels=("ultralytics",),
            advanced=True,
        ),
    ] = True
