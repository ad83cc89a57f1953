"""Fig. 12 as exhibits: the device's stream under each monitor. It is run in ``demo.figure12``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from training.measure.stream_figure import HEIGHT, draw_timeline
from training.reproduce.cases import Request
from training.reproduce.exhibit import Exhibit, drawn

__all__ = ["streams"]


def streams(document: Mapping[str, Any], request: Request, *, synthetic: bool) -> list[Exhibit]:
    """Return a figure for each monitor of the document ``adacompress.figure12/1``.

    Args:
        document: from ``figure12``.
        request: for the captions.
        synthetic: the night was made from day photos.
    """
    return [
        _exhibit(name, seen, document["segments"], request, synthetic=synthetic)
        for name, seen in document["monitors"].items()
    ]


def _exhibit(
    name: str,
    seen: Mapping[str, Any],
    segments: list[int],
    request: Request,
    *,
    synthetic: bool,
) -> Exhibit:
    columns, measured = seen["timeline"], seen["measured"]
    svg, png = drawn("timeline", HEIGHT, partial(draw_timeline, columns=columns))
    night = "a thermal camera’s model of day photos" if synthetic else "real frames"
    night_1, day, night_2 = segments
    return Exhibit(
        name=f"figure12-{name}",
        title=f"Fig. 12: night, day, night, watched by the {name} monitor",
        caption=(
            f"{night_1} pictures by night ({night}), {day} by day, {night_2} by night, one stream; "
            "no interval, since nothing is repeated. Uploaded: "
            f"{measured['bytes']:.2f} of the benchmark’s bytes, learning and monitoring included; "
            f"{measured['calls_per_image']:.2f} calls a picture; true agreement "
            f"{measured['agreement']:.3f}. Seed {request.seed}; made by: {request.command}"
        ),
        rows=[
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ],
        svg=svg,
        png=png,
    )
