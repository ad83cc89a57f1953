"""The two heads of the default agent, fitted together: from the picture alone, and from a probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.ladder import Ladder
from edge_sdk.policy import OperatingPoint
from export.network import CONFIDENCE, FactoredHead, Prefix, always_agrees
from export.probe_head import ProbeHead
from export.run import Head
from training.learn.bandit import FitReport, Observations, fit_factored
from training.learn.contest import Contest, contest
from training.learn.distil import classifier_of
from training.learn.logistic import log_loss
from training.learn.policies import ByValue, Fixed, Policy, Probing, Static
from training.learn.probing import Looks, fit_probe, predictions
from training.learn.reward import Reward

__all__ = ["Heads", "Seen", "policy", "scores"]

Array = NDArray[np.float64]
Classifier = tuple[torch.Tensor, torch.Tensor]

#: Folds in which a probe's words are learnt anew.
_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of N pictures.

    Attributes:
        ladder: K rungs, cheapest first.
        features: float32 (N, D).
        groups: (N,) photo of each.
        agreement: float64 (N, K), NaN where nobody asked.
        size_ratio: float64 (N, K).
        labels: (N,) the service's best label of each reference, "" for none.
        looks: float32 (N, K, D), or None.
    """

    ladder: Ladder
    features: NDArray[np.float32]
    groups: NDArray[np.object_]
    agreement: Array
    size_ratio: Array
    labels: NDArray[np.object_]
    looks: NDArray[np.float32] | None

    def take(self, rows: NDArray[np.int64]) -> Seen:
        """Return some of the pictures."""
        return replace(
            self,
            features=self.features[rows],
            groups=self.groups[rows],
            agreement=self.agreement[rows],
            size_ratio=self.size_ratio[rows],
            labels=self.labels[rows],
            looks=None if self.looks is None else self.looks[rows],
        )

    @property
    def observations(self) -> Observations:
        """The answered cells."""
        row, rung = np.nonzero(~np.isnan(self.agreement))
        return Observations(
            self.features,
            self.groups,
            row,
            rung,
            self.agreement[row, rung],
            self.size_ratio[row, rung],
        )

    def looked(self) -> Looks:
        """Return originals and encodings; somebody must have looked."""
        assert self.looks is not None
        return Looks(self.features, self.looks, self.size_ratio)


#: Classes learnt from some pictures, or None where there are too few to be told apart.
Speak = Callable[[Seen], Classifier | None]


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What was learnt.

    Attributes:
        static: decides by the original alone.
        probe: tells more from a candidate, or None where nobody looked.
        report: how the static head was fitted.
        vocabulary: whose classes the probe speaks in: ``imagenet`` or ``service``.
    """

    static: FactoredHead
    probe: ProbeHead | None
    report: FitReport
    vocabulary: str
    _seen: Seen
    _reward: Reward
    _confidence: int
    _speak: Speak

    @classmethod
    def of(cls, prefix: Prefix, seen: Seen, reward: Reward, rng: np.random.Generator) -> Heads:
        """Fit both heads.

        Args:
            prefix: made the features.
            seen: training pictures.
            reward: α and β.
            rng: assigns photos to folds.
        """
        confidence = CONFIDENCE if prefix.confidence else 0
        static, report = fit_factored(
            seen.observations, seen.ladder, reward, rng=rng, confidence=confidence
        )
        words: tuple[str, Speak] = ("none", _silence)
        if seen.looks is not None:
            words = _vocabulary(seen, _imagenet(prefix), confidence, rng)
        return cls(
            static=static,
            probe=_probe(seen, words[1]),
            report=report,
            vocabulary=words[0],
            _seen=seen,
            _reward=reward,
            _confidence=confidence,
            _speak=words[1],
        )

    def policies(self, pictures: Seen, max_probes: int) -> dict[str, Policy]:
        """Return every way of deciding about other pictures, simplest first."""
        predicted = scores(self.static, pictures.features)
        found: dict[str, Policy] = {
            "fixed": Fixed(_safest_first(self._seen), len(pictures.features)),
            "static": Static(predicted),
        }
        if self.probe is not None and pictures.looks is not None and max_probes > 0:
            told = predictions(self.probe, pictures.looked())
            found["probing"] = Probing(predicted, told, pictures.size_ratio, max_probes)
        return found

    def contest(self, rng: np.random.Generator) -> Contest:
        """Compare the ways of deciding by cross-validation on the training pictures."""
        seen = self._seen

        def predict(known: NDArray[np.int64], held: NDArray[np.int64]) -> dict[str, Array]:
            part, other = seen.take(known), seen.take(held)
            static, _ = fit_factored(
                part.observations,
                part.ladder,
                self._reward,
                rng=np.random.default_rng(0),
                confidence=self._confidence,
            )
            agreement = scores(static, other.features).agreement
            assert agreement is not None  # the head is factored
            found = {"fixed": _rung_means(part, len(held)), "static": agreement.astype(np.float64)}
            if (probe := _probe(part, self._speak)) is not None:
                found["probing"] = _own_look(probe, other)
            return found

        learnable = np.where(always_agrees(seen.ladder), np.nan, seen.agreement)
        return contest(predict, learnable, seen.groups, rng)


def policy(head: Head, probe: ProbeHead | None, point: OperatingPoint, pictures: Seen) -> Policy:
    """Return what an agent does with some pictures, at every trade-off."""
    predicted = scores(head, pictures.features)
    if point.rung is not None:
        return Fixed((point.rung,), len(pictures.features))
    if predicted.agreement is None:
        return ByValue(predicted)
    if probe is None or not point.max_probes:
        return Static(predicted)
    told = predictions(probe, pictures.looked())
    return Probing(predicted, told, pictures.size_ratio, point.max_probes)


def scores(head: Head, features: NDArray[np.float32]) -> Scores:
    """Return a head's scores of features (N, D)."""
    with torch.inference_mode():
        outputs = head(torch.from_numpy(np.ascontiguousarray(features)))
    return Scores(features, *(output.numpy() for output in outputs))


def _imagenet(prefix: Prefix) -> Classifier | None:
    """Return MobileNetV2's own last layer, if the prefix is whole."""
    if prefix.classifier is None:
        return None
    last = prefix.classifier[-1]
    return last.weight.detach(), last.bias.detach()


def _vocabulary(
    seen: Seen, own: Classifier | None, confidence: int, rng: np.random.Generator
) -> tuple[str, Speak]:
    """Choose the classes that tell more about agreement on photos not fitted to."""

    def service(pictures: Seen) -> Classifier | None:
        pooled = pictures.features[:, : pictures.features.shape[1] - confidence]
        return classifier_of(pooled, pictures.labels)

    candidates: dict[str, Speak] = {"imagenet": lambda pictures: own, "service": service}
    usable = {name: speak for name, speak in candidates.items() if speak(seen) is not None}
    if len(usable) < 2:
        return next(iter(usable.items()), ("none", _silence))
    photo = _photos(seen)
    held = (rng.permutation(int(photo.max()) + 1) % 3 == 0)[photo]
    part, other = seen.take(np.flatnonzero(~held)), seen.take(np.flatnonzero(held))
    probes = {name: _probe(part, speak) for name, speak in usable.items()}
    losses = {name: np.inf if one is None else _loss(one, other) for name, one in probes.items()}
    best = min(losses, key=lambda name: losses[name])
    return best, usable[best]


def _silence(pictures: Seen) -> Classifier | None:
    """Return no words: nobody looks."""
    return None


def _probe(seen: Seen, speak: Speak) -> ProbeHead | None:
    """Fit a probe, or return None where there are no words.

    What a classifier says of the very pictures that it was learnt from is surer than what it will
    say on the device. So a probe learns from pictures that its words were not learnt from.
    """
    classifier = speak(seen)
    if classifier is None:
        return None
    width = classifier[0].shape[1]
    spread = torch.from_numpy(seen.features[:, :width].std(axis=0) + 1e-3)
    sizes = torch.from_numpy(np.log(seen.size_ratio).mean(axis=0))
    fold, unlooked = _photos(seen) % _FOLDS, replace(seen, looks=None)
    teachers = []
    for number in np.unique(fold):
        words = speak(unlooked.take(np.flatnonzero(fold != number))) or classifier
        head = ProbeHead(words, spread, seen.ladder, sizes)
        teachers.append((head, np.flatnonzero(fold == number)))
    head = ProbeHead(classifier, spread, seen.ladder, sizes)
    return fit_probe(head, seen.looked(), seen.agreement, seen.ladder, teachers)


def _photos(seen: Seen) -> NDArray[np.int64]:
    """Return the number of each picture's photo, (N,)."""
    return np.asarray(np.unique(seen.groups.astype(str), return_inverse=True)[1])


def _loss(head: ProbeHead, seen: Seen) -> float:
    """Return the log-loss of probing a rung and foreseeing that very rung, in nats."""
    asked = ~np.isnan(seen.agreement)
    p = np.clip(_own_look(head, seen)[asked], 1e-6, 1.0 - 1e-6)
    return float(log_loss(np.log(p / (1.0 - p)), seen.agreement[asked]).mean())


def _own_look(head: ProbeHead, seen: Seen) -> Array:
    """Return the agreement of every rung as a probe of that very rung foresees it, (N, K)."""
    told = predictions(head, seen.looked())
    return np.asarray(told.diagonal(axis1=1, axis2=2), dtype=np.float64)


def _rung_means(seen: Seen, count: int) -> Array:
    """Return each rung's mean agreement, drawn a little to one half, for ``count`` pictures."""
    asked = ~np.isnan(seen.agreement)
    agreed = np.where(asked, seen.agreement, 0.0).sum(axis=0)
    return np.tile((agreed + 0.5) / (asked.sum(axis=0) + 1.0), (count, 1))


def _safest_first(seen: Seen) -> tuple[int, ...]:
    """Return the rungs from the reference's pixels down; dearer ones would be no safer."""
    sizes = seen.size_ratio.mean(axis=0)
    dearest = sizes[always_agrees(seen.ladder)].min(initial=np.inf)
    order = np.argsort(-sizes, kind="stable")
    return tuple(int(rung) for rung in order if sizes[rung] <= dearest)
