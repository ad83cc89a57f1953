"""A reviewers' question: would a larger feature extractor, or less of the small one, do better?

Every extractor gets the same photos, answers, split and learner; only the features differ. It is
MobileNetV2's prefix after each of its blocks, and whatever ``--extractor`` names. Compared are the
bytes and the agreement on unseen photos, and the milliseconds on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edge_sdk.ladder import FULL
from edge_sdk.preprocess import to_input
from export.network import Prefix
from model_store.errors import UsageError
from training.labels.table import AnswerTable
from training.learn.bandit import Observations, fit_factored
from training.learn.compute import one_thread
from training.learn.decisions import scores
from training.learn.policies import Static
from training.learn.reward import Reward
from training.measure.baselines import chosen
from training.measure.trial import size_at
from training.reproduce.cases import Case, Request
from training.reproduce.exhibit import LOOKS, Exhibit, Row, drawn
from training.reproduce.sceneries import DAY

__all__ = ["compare_extractors", "extractor"]

Floats = NDArray[np.float32]
#: Maps one RGB picture to its features, (D,).
Extractor = Callable[[Image.Image], Floats]

_SIDE = 224
_METRIC = "any_hit"
# torchvision's ImageNet statistics, on pixels in [0, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Extracted:
    """Features of all photos of a case, (N, D), and what one picture took."""

    name: str
    cut: int | None
    values: Floats
    milliseconds: float


def compare_extractors(cases: Sequence[Case], request: Request) -> Exhibit:
    """Compare on the first service by day."""
    case = next((one for one in cases if one.scenery == DAY), cases[0])
    with one_thread():
        found = [*_prefixes(case), *(_other(case, name) for name in request.extractors)]
    rows = [_row(case, one, request) for one in found]
    svg, png = drawn("extractors", 4.6, lambda figure: _draw(figure, rows, request))
    best = min(rows, key=lambda row: row["size_at_target"])
    last = max((row for row in rows if row["cut"] is not None), key=lambda row: row["cut"])
    return Exhibit(
        name="extractors",
        title="Extractors: MobileNetV2’s prefix after every block, and others",
        caption=(
            f"{case.title}: {len(case.parts.train.table)} photos to fit our agent’s head, "
            f"{len(case.parts.held.table)} to choose its trade-off for a mean agreement of "
            f"{request.target:g}, {len(case.test)} unseen ones to measure; the same for every "
            "extractor, from the untouched picture alone, without classifier confidence. Left: "
            "size ratio and right: agreement at that trade-off, with 95 % intervals over photos; "
            "times are medians on one core, preprocessing included. In hindsight, for exactly "
            f"{request.target:g}, the whole prefix needs {last['size_at_target']:.3f} of the bytes "
            f"and the best, {best['extractor']}, {best['size_at_target']:.3f}; the intervals "
            "tell what of that is chance."
        ),
        rows=rows,
        svg=svg,
        png=png,
    )


def extractor(name: str) -> Extractor:
    """Open ``FILE.onnx`` or ``torchvision:NAME[:FILE.pth]``.

    An ONNX file with floating-point inputs gets torchvision's normalisation, one with whole numbers
    the pixels. Maps are pooled over the picture. Of a torchvision network the last linear layer is
    left out.

    Raises:
        UsageError: it is neither, or cannot be opened.
    """
    if name.startswith("torchvision:"):
        return _torchvision(*name.removeprefix("torchvision:").split(":", 1))
    if Path(name).suffix == ".onnx" and Path(name).is_file():
        return _onnx(Path(name))
    raise UsageError(
        f"The extractor {name!r} is unknown; allowed are a file FILE.onnx, or "
        "torchvision:NAME[:FILE.pth]."
    )


def _torchvision(name: str, weights: str | None = None) -> Extractor:
    import torchvision

    try:
        network = torchvision.models.get_model(name, weights=None if weights else "DEFAULT")
        if weights is not None:
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except (ValueError, OSError, RuntimeError) as error:
        raise UsageError(
            f"The extractor torchvision:{name} cannot be opened: {error}. Give the name of one of "
            "torchvision's classifiers and, where its weights cannot be downloaded, their file."
        ) from error
    _headless(network)
    network.eval()

    def extract(image: Image.Image) -> Floats:
        with torch.inference_mode():
            found: Tensor = network(torch.from_numpy(_normalised(image, _SIDE)))
        return _pooled(found.numpy())

    return extract


def _headless(network: nn.Module) -> None:
    """Replace the last linear layer, which tells classes, by nothing."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if names:
        parent, _, last = names[-1].rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Identity())


def _onnx(path: Path) -> Extractor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own unrelated classes
        raise UsageError(f"The extractor {str(path)!r} cannot be opened: {error}") from error
    (entry, *others) = session.get_inputs()
    if others or len(entry.shape) != 4:
        raise UsageError(
            f"The extractor {str(path)!r} takes {len(others) + 1} input(s), the first of shape "
            f"{entry.shape}; allowed is one picture, (N, 3, S, S) or (N, S, S, 3)."
        )
    last = entry.shape[3] == 3
    given = entry.shape[1] if last else entry.shape[2]
    side, whole = given if isinstance(given, int) else _SIDE, "int" in entry.type

    def extract(image: Image.Image) -> Floats:
        pixels = to_input(image, side) if whole else _normalised(image, side)
        planes_last = whole  # what the line above made
        if planes_last != last:
            pixels = pixels.transpose((0, 2, 3, 1) if last else (0, 3, 1, 2))
        return _pooled(session.run(None, {entry.name: np.ascontiguousarray(pixels)})[0])

    return extract


def _normalised(image: Image.Image, side: int) -> Floats:
    """Return (1, 3, S, S) float32, as torchvision's classifiers take it."""
    pixels = to_input(image, side).astype(np.float32) / 255.0
    scaled = (pixels - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def _pooled(found: NDArray[Any]) -> Floats:
    maps = found[0]
    pooled = maps.mean(axis=(1, 2)) if maps.ndim == 3 else maps.ravel()
    return np.asarray(pooled, dtype=np.float32)


def _prefixes(case: Case) -> list[_Extracted]:
    """Run the prefix once, and take the pooled activations after every block."""
    prefix, values, took = case.prefix, [], []
    for view in case.views(case.everything.table):
        image, begun = view.open(), time.perf_counter()
        pixels = torch.from_numpy(to_input(image, prefix.side).copy())
        steps = [(one, 1000.0 * (time.perf_counter() - begun)) for one in _blocks(prefix, pixels)]
        values.append([one for one, _ in steps])
        took.append([spent for _, spent in steps])
    median = np.median(np.array(took), axis=0)
    return [
        _Extracted(
            f"MobileNetV2, {cut + 1} blocks",
            cut + 1,
            np.stack([one[cut] for one in values]),
            float(median[cut]),
        )
        for cut in range(len(median))
    ]


def _blocks(prefix: Prefix, image: Tensor) -> Iterator[Floats]:
    with torch.inference_mode():
        activations = (image.permute(0, 3, 1, 2).to(torch.float32) - prefix.mean) / prefix.std
        for block in prefix.blocks:
            activations = block(activations)
            yield _pooled(activations.numpy())


def _other(case: Case, name: str) -> _Extracted:
    extract, values, took = extractor(name), [], []
    for view in case.views(case.everything.table):
        image, begun = view.open(), time.perf_counter()
        values.append(extract(image))
        took.append(1000.0 * (time.perf_counter() - begun))
    said = name if name.startswith("torchvision:") else Path(name).stem
    return _Extracted(said, None, np.stack(values), float(np.median(took)))


def _row(case: Case, found: _Extracted, request: Request) -> Row:
    """Learn on these features, choose the trade-off on the photos held back, and measure."""
    place = {key: row for row, key in enumerate(case.everything.table.keys)}

    def part(table: AnswerTable) -> Floats:
        return found.values[[place[key] for key in table.keys]]

    train, held, test = (
        one.table.on(FULL) for one in (case.parts.train, case.parts.held, case.parts.test)
    )
    head, _ = fit_factored(_observed(part(train), train), FULL, Reward(), rng=request.rng())
    known, policy = Static(scores(head, part(held))), Static(scores(head, part(test)))
    enough = [
        step
        for step in known.steps
        if chosen(held.agreement[_METRIC], known.rungs(step)).mean() >= request.target
    ]
    rungs = policy.rungs(min(enough, default=max(known.steps)))
    columns = [chosen(test.size_ratio, rungs), chosen(test.agreement[_METRIC], rungs)]
    draws = case.draws(request.rng())
    size = draws.figures(columns[0][:, None])[0]
    agreement = draws.proportions(columns[1][:, None])[0]
    row: dict[str, Any] = {
        "extractor": found.name,
        "cut": found.cut,
        "features": found.values.shape[1],
        "milliseconds": round(found.milliseconds, 2),
    }
    for name, figure in (("size_ratio", size), ("agreement", agreement)):
        row |= {name: round(figure.mean, 4)}
        row |= {f"{name}_lo": round(figure.lo, 4), f"{name}_hi": round(figure.hi, 4)}
    return row | {"size_at_target": round(size_at(policy, test, request.target, _METRIC), 4)}


def _observed(values: Floats, table: AnswerTable) -> Observations:
    agreement = table.agreement[_METRIC]
    row, rung = np.nonzero(~np.isnan(agreement))
    size = table.size_ratio[row, rung]
    return Observations(values, table.groups, row, rung, agreement[row, rung], size)


def _draw(figure: Any, rows: Sequence[Row], request: Request) -> None:
    grid = figure.subplots(1, 2, sharex=True)
    blocks = [row for row in rows if row["cut"] is not None]
    for axes, name in zip(grid, ("size_ratio", "agreement"), strict=True):
        _points(axes, blocks, name, LOOKS[0][0], "o", "-", "MobileNetV2’s prefix, blocks")
        for number, row in enumerate(row for row in rows if row["cut"] is None):
            colour, marker = LOOKS[(number + 1) % len(LOOKS)][0], "sD^vPX"[number % 6]
            _points(axes, [row], name, colour, marker, "", row["extractor"])
        for row in blocks[:: max(1, len(blocks) // 5)]:
            axes.annotate(
                str(row["cut"]),
                (row["milliseconds"], row[name]),
                (4, 5),
                textcoords="offset points",
                size=8,
            )
        axes.set_xlabel("milliseconds a picture, one core")
        axes.set_ylabel("size ratio" if name == "size_ratio" else "agreement")
    grid[0].set_ylim(bottom=0)
    grid[1].axhline(request.target, color="black", lw=0.9, ls=(0, (1, 3)), label="wanted")
    figure.legend(*grid[1].get_legend_handles_labels(), loc="outside upper center", ncols=4)


def _points(
    axes: Any, rows: Sequence[Row], name: str, colour: str, marker: str, line: str, said: str
) -> None:
    values = np.array([row[name] for row in rows])
    ends = np.array([[row[f"{name}_lo"], row[f"{name}_hi"]] for row in rows]).T
    axes.errorbar(
        [row["milliseconds"] for row in rows],
        values,
        yerr=np.maximum(0.0, np.array([values - ends[0], ends[1] - values])),
        color=colour,
        marker=marker,
        ms=5,
        ls=line,
        elinewidth=0.8,
        capsize=1.5,
        label=said,
    )
