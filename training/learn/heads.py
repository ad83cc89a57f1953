"""The two heads of the default agent, fitted together: from the picture alone, and from a probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.ladder import Ladder, kinds_of
from edge_sdk.policy import OperatingPoint
from edge_sdk.view import View
from export.network import CONFIDENCE, FactoredHead, Prefix, always_agrees
from export.probe_head import ProbeHead
from export.run import Head
from training.learn.bandit import FitReport, Observations, fit_factored
from training.learn.compute import one_thread
from training.learn.contest import Contest, contest
from training.learn.distil import classifier_of
from training.learn.logistic import log_loss
from training.learn.policies import ByValue, Fixed, Policy, Probing, Static
from training.learn.probing import Looks, fit_probe, predictions
from training.learn.reward import Reward

__all__ = ["NO_START", "Heads", "Seen", "Start", "doubtful", "policy", "scores"]

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
        looks: float32 (N, K, D), NaN of rungs that nobody looked at, or None.
        framed: view -> float32 (N, D), of what the ladder's views show of the pictures.
    """

    ladder: Ladder
    features: NDArray[np.float32]
    groups: NDArray[np.object_]
    agreement: Array
    size_ratio: Array
    labels: NDArray[np.object_]
    looks: NDArray[np.float32] | None
    framed: Mapping[View, NDArray[np.float32]] = field(default_factory=dict)

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
            framed={view: values[rows] for view, values in self.framed.items()},
        )

    def joined(self, other: Seen) -> Seen:
        """Return these pictures, then others on the same ladder."""
        looks = None
        if self.looks is not None and other.looks is not None:
            looks = np.concatenate([self.looks, other.looks])
        return Seen(
            ladder=self.ladder,
            features=np.concatenate([self.features, other.features]),
            groups=np.concatenate([self.groups, other.groups]),
            agreement=np.concatenate([self.agreement, other.agreement]),
            size_ratio=np.concatenate([self.size_ratio, other.size_ratio]),
            labels=np.concatenate([self.labels, other.labels]),
            looks=looks,
            framed={
                view: np.concatenate([self.framed[view], other.framed[view]])
                for view in self.framed.keys() & other.framed.keys()
            },
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
        framed = {
            place: self.framed[rung.view]
            for place, rung in enumerate(self.ladder)
            if rung.view is not None and rung.view in self.framed
        }
        return Looks(self.features, self.looks, self.size_ratio, framed)


@dataclass(frozen=True)
class Start:
    """Heads of another agent on the same ladder that learning may start from, as far as given."""

    static: FactoredHead | None = None
    probe: ProbeHead | None = None


#: Learning from nothing.
NO_START = Start()


@dataclass(frozen=True)
class _Words:
    """What a probe says its looks in.

    Attributes:
        name: ``imagenet``, ``service`` or ``none``.
        speak: classes learnt from some pictures, or None where there are too few to be told apart.
        start: a head with the same words that only differences are learnt to, or None.
    """

    name: str
    speak: Callable[[Seen], Classifier | None]
    start: ProbeHead | None = None


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What was learnt.

    Attributes:
        static: decides by the original alone.
        probe: tells more from a candidate, or None where nobody looked.
        report: how the static head was fitted.
        vocabulary: whose classes the probe speaks in: ``imagenet`` or ``service``.
        started: whether a head learnt only its difference to another agent's.
    """

    static: FactoredHead
    probe: ProbeHead | None
    report: FitReport
    vocabulary: str
    started: bool
    _seen: Seen
    _reward: Reward
    _confidence: int
    _words: _Words
    _base: FactoredHead | None

    @classmethod
    def of(
        cls,
        prefix: Prefix,
        seen: Seen,
        reward: Reward,
        rng: np.random.Generator,
        start: Start = NO_START,
    ) -> Heads:
        """Fit both heads.

        Args:
            prefix: made the features.
            seen: training pictures.
            reward: α and β.
            rng: assigns photos to folds.
            start: heads to start from, each taken if that foresees the answers better.
        """
        confidence = CONFIDENCE if prefix.confidence else 0
        base, static, report = _static(seen, reward, rng, confidence, start)
        words = _NO_WORDS
        if seen.looks is not None:
            words = _vocabulary(seen, _imagenet(prefix), confidence, rng, start.probe)
        return cls(
            static=static,
            probe=_probe(seen, words),
            report=report,
            vocabulary=words.name,
            started=base is not None or words.start is not None,
            _seen=seen,
            _reward=reward,
            _confidence=confidence,
            _words=words,
            _base=base,
        )

    def policies(self, pictures: Seen, max_probes: int) -> dict[str, Policy]:
        """Return every way of deciding about other pictures, simplest first."""
        predicted = scores(self.static, pictures.features)
        found: dict[str, Policy] = {
            "fixed": Fixed(_safest_first(self._seen, self.static), len(pictures.features)),
            "static": Static(predicted),
        }
        if self.probe is not None and pictures.looks is not None and max_probes > 0:
            told = predictions(self.probe, pictures.looked())
            found["probing"] = Probing(
                predicted, told, pictures.size_ratio, max_probes, ladder=pictures.ladder
            )
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
                base=self._base,
            )
            agreement = scores(static, other.features).agreement
            assert agreement is not None  # the head is factored
            found = {"fixed": _rung_means(part, len(held)), "static": agreement.astype(np.float64)}
            if (probe := _probe(part, self._words)) is not None:
                looked = _own_look(probe, other)
                found["probing"] = np.where(np.isnan(looked), found["static"], looked)
            return found

        learnable = np.where(always_agrees(seen.ladder), np.nan, seen.agreement)
        return contest(predict, learnable, seen.groups, rng)


def doubtful(
    prefix: Prefix,
    seen: Seen,
    calls: int,
    rng: np.random.Generator,
    start: Start = NO_START,
) -> NDArray[np.int64] | None:
    """Return the rungs of every picture whose answers are least foreseeable, (N, calls).

    A probe fitted to the answers so far looks at every encoding; where it says yes or no nearly
    certainly, an answer would teach little. What is chosen depends on what a picture looks like and
    not on its own answer, so what is fitted to the answers stays unbiased.

    Args:
        prefix: made the features.
        seen: with the answers so far.
        calls: rungs a picture; those already asked and the reference's pixels come last.
        rng: assigns photos to folds.
        start: heads to start from.

    Returns:
        None where no probe can be fitted.
    """
    confidence = CONFIDENCE if prefix.confidence else 0
    words = _vocabulary(seen, _imagenet(prefix), confidence, rng, start.probe)
    if (probe := _probe(seen, words)) is None:
        return None
    foreseen = _own_look(probe, seen)
    foreseen = np.where(np.isnan(foreseen), _rung_means(seen, len(foreseen)), foreseen)
    settled = ~np.isnan(seen.agreement) | np.array(always_agrees(seen.ladder))
    doubt = np.where(settled, -1.0, foreseen * (1.0 - foreseen))
    return np.argsort(-doubt, axis=1, kind="stable")[:, :calls]


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
    return Probing(predicted, told, pictures.size_ratio, point.max_probes, ladder=pictures.ladder)


@one_thread()
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


def _static(
    seen: Seen,
    reward: Reward,
    rng: np.random.Generator,
    confidence: int,
    start: Start,
) -> tuple[FactoredHead | None, FactoredHead, FitReport]:
    """Fit the static head, from another agent's if that foresees better; return that one first."""
    seed = int(rng.integers(2**32))  # the same folds for both
    fits = []
    for base in (None, start.static) if start.static else (None,):
        head, report = fit_factored(
            seen.observations,
            seen.ladder,
            reward,
            rng=np.random.default_rng(seed),
            confidence=confidence,
            base=base,
        )
        fits.append((base, head, report))
    return min(fits, key=lambda fit: fit[2].log_loss[1])


def _vocabulary(
    seen: Seen,
    own: Classifier | None,
    confidence: int,
    rng: np.random.Generator,
    start: ProbeHead | None = None,
) -> _Words:
    """Choose the classes, and the start, that tell more about agreement on photos not fitted to."""

    def service(pictures: Seen) -> Classifier | None:
        pooled = pictures.features[:, : pictures.features.shape[1] - confidence]
        return classifier_of(pooled, pictures.labels)

    candidates = [_Words("imagenet", lambda pictures: own), _Words("service", service)]
    if start is not None:
        candidates.append(replace(candidates[0], start=start))
        # Each of several kinds has so few answers, most of them asked where they are in doubt, that
        # a third of the photos does not tell what a start is worth; in trials it always paid.
        candidates = candidates[1:] if len({*kinds_of(seen.ladder)}) > 1 else candidates
    usable = [words for words in candidates if words.speak(seen) is not None]
    if len(usable) < 2:
        return next(iter(usable), _NO_WORDS)
    photo = _photos(seen)
    held = (rng.permutation(int(photo.max()) + 1) % 3 == 0)[photo]
    part, other = seen.take(np.flatnonzero(~held)), seen.take(np.flatnonzero(held))
    probes = [(words, _probe(part, words)) for words in usable]
    losses = [np.inf if one is None else _loss(one, other) for _, one in probes]
    return usable[int(np.argmin(losses))]


#: Nobody looks.
_NO_WORDS = _Words("none", lambda pictures: None)


def _probe(seen: Seen, chosen: _Words) -> ProbeHead | None:
    """Fit a probe, or return None where there are no words.

    What a classifier says of the very pictures that it was learnt from is surer than what it will
    say on the device. So a probe learns from pictures that its words were not learnt from.
    """
    classifier = chosen.speak(seen)
    if classifier is None:
        return None
    width = classifier[0].shape[1]
    spread = torch.from_numpy(seen.features[:, :width].std(axis=0) + 1e-3)
    sizes = torch.from_numpy(np.log(seen.size_ratio).mean(axis=0))
    fold, unlooked = _photos(seen) % _FOLDS, replace(seen, looks=None)
    teachers = []
    for number in np.unique(fold):
        words = chosen.speak(unlooked.take(np.flatnonzero(fold != number))) or classifier
        head = ProbeHead(words, spread, seen.ladder, sizes)
        teachers.append((head, np.flatnonzero(fold == number)))
    head = ProbeHead(classifier, spread, seen.ladder, sizes)
    return fit_probe(head, seen.looked(), seen.agreement, seen.ladder, teachers, chosen.start)


def _photos(seen: Seen) -> NDArray[np.int64]:
    """Return the number of each picture's photo, (N,)."""
    return np.asarray(np.unique(seen.groups.astype(str), return_inverse=True)[1])


def _loss(head: ProbeHead, seen: Seen) -> float:
    """Return the log-loss of probing a rung and foreseeing that very rung, in nats."""
    foreseen = _own_look(head, seen)
    asked = ~np.isnan(seen.agreement) & ~np.isnan(foreseen)
    p = np.clip(foreseen[asked], 1e-6, 1.0 - 1e-6)
    return float(log_loss(np.log(p / (1.0 - p)), seen.agreement[asked]).mean())


def _own_look(head: ProbeHead, seen: Seen) -> Array:
    """Return the agreement of every rung as a probe of that very rung foresees it, (N, K).

    NaN where nobody looked.
    """
    told = predictions(head, seen.looked())
    return np.asarray(told.diagonal(axis1=1, axis2=2), dtype=np.float64)


def _rung_means(seen: Seen, count: int) -> Array:
    """Return each rung's mean agreement, drawn a little to one half, for ``count`` pictures."""
    asked = ~np.isnan(seen.agreement)
    agreed = np.where(asked, seen.agreement, 0.0).sum(axis=0)
    return np.tile((agreed + 0.5) / (asked.sum(axis=0) + 1.0), (count, 1))


def _safest_first(seen: Seen, head: FactoredHead) -> tuple[int, ...]:
    """Return the rungs from the reference's pixels down; dearer ones would be no safer.

    Of several kinds a dearer rung often agrees less than another kind's cheaper one. Such rungs
    would end a test that goes down step by step, and are left out.
    """
    sizes = seen.size_ratio.mean(axis=0)
    dearest = sizes[always_agrees(seen.ladder)].min(initial=np.inf)
    order = np.argsort(-sizes, kind="stable")
    down = tuple(int(rung) for rung in order if sizes[rung] <= dearest)
    if len({*kinds_of(seen.ladder)}) < 2:
        return down
    expected = scores(head, seen.features).agreement
    assert expected is not None  # the head is factored
    agreed = expected.mean(axis=0)
    return tuple(
        rung
        for place, rung in enumerate(down)
        if all(agreed[cheaper] < agreed[rung] for cheaper in down[place + 1 :])
    )
