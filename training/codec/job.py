"""One codec from photos to files and figures: what ``python -m training codec`` does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_sdk import reading
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.artefact import encoder_metadata
from export.feature_network import Adapter, Shape
from export.feature_onnx import encoder_onnx, server_onnx, tail_onnx
from export.onnx_graph import Graph
from export.torfason import macs
from model_store.files import write_atomic
from training.codec import torfason
from training.codec.artefact import SEGMENTS, Files, amend, names_of, write
from training.codec.classifier import Classifier, Cut
from training.codec.learn import History, Learnt, coded, integers_of, learn
from training.codec.network import Recipe
from training.codec.pictures import Seen, crops, features, scores, split
from training.codec.prefix import OWN, Front, prefix_of
from training.codec.segmentation import learn_segmenter, masks_of, segmented
from training.codec.start import ridge
from training.codec.tables import context_arrays, factorised_arrays, observe
from training.codec.trial import Trial, measured
from training.codec.viewer import learn_viewer
from training.learn.compute import CPU
from training.progress import Stages
from training.versions import versions

__all__ = ["Plan", "run"]

#: Crops of each photo to learn from, the whole view among them.
_CROPS = 9

#: Positions of a square that become channels of one, where the map is at least this wide.
_FOLD, _FOLDED = 2, 8

#: Channels of what is sent, as a share of the folded features.
_CODES = 0.3

#: Learning rate of a tail that learns too.
_TAIL_RATE = 2e-5

#: Photos to learn from, to choose rates by and to measure on.
Parts = Sequence[Sequence[Path]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to learn.

    Attributes:
        classifier: the user's.
        cut: name of a tensor, None for the default.
        prefix: "own", "mobilenetv2" or "mobilenetv2:N".
        lambdas: price of a kilobyte at each rate.
        entropy: "context" or "factorised".
        codes: C, None for the default.
        steps: of the network.
        minutes: that the steps may take, None for no limit.
        fine_tune_tail: its weights learn too.
        viewer: learn to show what is sent.
        seed: of split, crops and network.
        architecture: Torfason's instead of ours, None for ours; cut, prefix and rates are then not
            asked for.
        masks: folder of the photos' masks, for a segmentation head; None for none.
        device: where torch computes what takes long.
    """

    classifier: Classifier
    cut: str | None
    prefix: str
    lambdas: tuple[float, ...]
    entropy: str
    codes: int | None
    steps: int
    minutes: float | None
    fine_tune_tail: bool
    viewer: bool
    seed: int
    architecture: torfason.Configuration | None = None
    masks: Path | None = None
    device: torch.device = CPU

    def recipe(self, cut: Cut) -> Recipe:
        """Return how to learn at a cut."""
        depth, height, _ = cut.place.shape
        fold = _FOLD if height >= _FOLDED and height % _FOLD == 0 else 1
        codes = self.codes or max(8, round(_CODES * depth * fold**2 / 8) * 8)
        return Recipe(
            shape=Shape(channels=depth, codes=codes, rates=len(self.lambdas), fold=fold),
            lambdas=self.lambdas,
            context=48 if self.entropy == "context" else 0,
            steps=self.steps,
            minutes=self.minutes,
            tail_rate=_TAIL_RATE if self.fine_tune_tail else 0.0,
            seed=self.seed,
        )


def run(plan: Plan, paths: Sequence[Path], folder: Path, stages: Stages) -> Trial:
    """Learn, write and measure a codec.

    Args:
        plan: what to learn.
        paths: readable photos.
        folder: the codec's.
        stages: told what is going on.
    """
    parts = split(paths, plan.seed)
    work = _ours if plan.architecture is None else _torfason
    history = work(plan, parts, folder, stages)
    return measured(folder, parts[1], parts[2], history, stages)


def _ours(plan: Plan, parts: Parts, folder: Path, stages: Stages) -> History:
    cut = plan.classifier.at(plan.cut)
    front = prefix_of(plan.prefix, cut)
    masks = None  # read first: what is wrong with them is told before anything is learnt
    if plan.masks is not None:
        masks = masks_of(plan.masks, [*parts[0], *parts[2]], plan.classifier.view)
    learnt, files, codes = _made(plan, cut, front, parts[0], stages)
    device = front.macs + _bottleneck_macs(learnt, cut.place.shape)
    facts = {
        "cut": cut.place.name,
        "prefix": front.name,
        "macs": {"device": device, "classifier": plan.classifier.macs},
        "provenance": {
            **_provenance(plan, parts, learnt.steps),
            "lambdas": list(plan.lambdas),
            "fold": learnt.bottleneck.shape.fold,
            "fine_tuned_tail": plan.fine_tune_tail,
        },
    }
    write(files, plan.classifier, folder, facts)
    if masks is not None:
        with stages.stage("learning to segment"):
            _segment(plan, learnt, codes[::_CROPS], masks, parts, folder)
    return learnt.history


def _segment(
    plan: Plan,
    learnt: Learnt,
    codes: Tensor,
    masks: Mapping[Path, npt.NDArray[np.uint8]],
    parts: Parts,
    folder: Path,
) -> None:
    """Write ``segments.onnx``, and how good it is on the test photos."""
    wanted = np.stack([masks[path] for path in parts[0]])
    head = learn_segmenter(
        learnt.bottleneck, learnt.decoder, codes, wanted, steps=plan.steps, seed=plan.seed
    )
    size = (learnt.bottleneck.shape.codes, codes.shape[2], codes.shape[3])
    write_atomic(folder / SEGMENTS, server_onnx(head, size, "classes", {}))
    coder = FeatureCodec.open(folder)
    integers = np.stack([coder.integers(reading.load(path).image) for path in parts[2]])
    scores = segmented(head, integers, np.stack([masks[path] for path in parts[2]]))
    amend(folder, {"segmentation": {"mean_iou": scores, "photos": len(parts[2])}})


def _torfason(plan: Plan, parts: Parts, folder: Path, stages: Stages) -> History:
    if plan.architecture is None:
        raise ValueError("the plan has no architecture")
    view, whole = plan.classifier.view, Graph(plan.classifier.model).eval()
    with stages.stage("looking at the photos", len(parts[0])) as step:
        pixels, answers = [], []
        for path in parts[0]:
            seen = np.stack(crops(path, view, _CROPS, plan.seed))
            with torch.inference_mode():
                answers.append(torch.softmax(whole(torch.from_numpy(seen)), dim=1))
            pixels.append(seen)
            step(1)
    every = np.concatenate(pixels)
    with stages.stage("learning", plan.architecture.steps) as step:
        wanted = torch.cat(answers).clone()
        network = torfason.learn(plan.architecture, every, wanted, step, plan.device)
    example = torch.zeros(1, 3, view.side, view.side)
    facts = {
        "cut": "picture",
        "prefix": f"torfason:{plan.architecture.network}",
        "macs": {
            "device": macs(network.compressor, example),
            "classifier": plan.classifier.macs,
        },
        "provenance": _provenance(plan, parts, plan.architecture.steps),
    }
    write(torfason.files(network, every, plan.classifier), plan.classifier, folder, facts)
    return []


def _made(
    plan: Plan, cut: Cut, front: Front, paths: Sequence[Path], stages: Stages
) -> tuple[Learnt, Files, Tensor]:
    tail, recipe = cut.tail(), plan.recipe(cut)
    with stages.stage("looking at the photos", len(paths)) as step:
        seen, given, pixels = _seen(plan, cut, front, tail, paths, step)
    adapter = None
    if given is not None:
        with stages.stage("fitting the adapter"):
            adapter = _adapter(given, seen.features)
    with stages.stage("learning", recipe.steps) as step:
        learnt = learn(
            tail, seen, recipe, adapter=adapter, given=given, step=step, device=plan.device
        )
    source = seen.features if given is None else given
    with stages.stage("counting integers"):
        codes = torch.cat(list(coded(learnt.bottleneck, source, learnt.adapter)))
        entropy = _entropy(learnt, codes)
    viewer = None
    if plan.viewer:
        with stages.stage("learning to show what is sent"):
            viewer = learn_viewer(
                learnt.bottleneck, codes, pixels, seed=plan.seed, steps=min(plan.steps, 120)
            )
    shape = (learnt.bottleneck.shape.codes, codes.shape[2], codes.shape[3])
    with stages.stage("exporting"):
        seen_as = encoder_metadata(plan.classifier.view, shape)
        files = Files(
            encoder=encoder_onnx(
                front.model, learnt.bottleneck, learnt.adapter, front.shape, seen_as
            ),
            tail=tail_onnx(
                learnt.decoder,
                cut.back,
                shape,
                names_of(plan.classifier),
                tail.tuned() if plan.fine_tune_tail else None,
            ),
            viewer=None if viewer is None else server_onnx(viewer, shape, "image", {}),
            entropy=entropy,
            kind=plan.entropy,
            shape=shape,
            limit=learnt.bottleneck.shape.limit,
            rates=learnt.bottleneck.shape.rates,
        )
    return learnt, files, codes


def _seen(
    plan: Plan, cut: Cut, front: Front, tail: Graph, paths: Sequence[Path], step: Any
) -> tuple[Seen, Tensor | None, npt.NDArray[np.uint8]]:
    """Return the service's maps and answers, another prefix's maps, and the views made small."""
    where = plan.device
    own, other = cut.prefix().to(where), None if front.name == OWN else front.module.to(where)
    maps, others, small = [], [], []
    for path in paths:
        views = crops(path, plan.classifier.view, _CROPS, plan.seed)
        maps.append(features(own, views, device=where))
        small += [view[::2, ::2] for view in views]
        if other is not None:
            others.append(features(other, views, device=where))
        step(1)
    joined = torch.cat(maps)
    given = torch.cat(others) if others else None
    answers = scores(tail.to(where), joined, where)
    tail.cpu()
    front.module.cpu()
    return Seen(joined, answers), given, np.stack(small)


def _adapter(given: Tensor, wanted: Tensor) -> Adapter:
    adapter = Adapter(given.shape[1], wanted.shape[1])
    weight, bias = ridge(given, wanted)
    with torch.no_grad():
        adapter.linear.weight.copy_(weight)
        adapter.linear.bias.copy_(bias)
    return adapter


def _entropy(learnt: Learnt, codes: Tensor) -> dict[str, npt.NDArray[Any]]:
    shape = learnt.bottleneck.shape
    if learnt.entropy is None:
        return factorised_arrays(_integers(learnt, codes), shape.rates, shape.codes, shape.limit)
    tables = observe(learnt.entropy, _integers(learnt, codes), shape.limit)
    return context_arrays(learnt.entropy, tables)


def _integers(learnt: Learnt, codes: Tensor) -> Iterator[tuple[Tensor, int]]:
    for rate in range(learnt.bottleneck.shape.rates):
        for batch in codes.split(256):
            yield integers_of(learnt.bottleneck, batch, rate), rate


def _provenance(plan: Plan, parts: Parts, steps: int) -> dict[str, Any]:
    return {
        "seed": plan.seed,
        "steps": steps,
        "photos": {
            name: {"photos": len(paths), "fingerprint": _fingerprint(paths)}
            for name, paths in zip(("train", "calibration", "test"), parts, strict=True)
        },
        "versions": versions(),
    }


def _bottleneck_macs(learnt: Learnt, maps: tuple[int, int, int]) -> int:
    shape = learnt.bottleneck.shape
    positions = maps[1] * maps[2] // shape.fold**2
    weights = [one for one in learnt.bottleneck.parameters() if one.dim() == 4]
    adapted = [] if learnt.adapter is None else list(learnt.adapter.parameters())
    own = sum(one.numel() for one in weights) * positions
    return own + sum(one.numel() for one in adapted if one.dim() == 4) * maps[1] * maps[2]


def _fingerprint(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
