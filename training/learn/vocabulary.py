"""The words that a probe says its looks in, and probes that learn to speak in them.

A probe compares what a classifier says of a picture and of its candidate encoding. The classes are
MobileNetV2's own, or learnt from the service's labels: whichever tells more about agreement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.ladder import kinds_of
from export.network import CONFIDENCE, Prefix
from export.probe_head import ProbeHead
from training.learn.distil import classifier_of
from training.learn.logistic import log_loss
from training.learn.probing import fit_probe, predictions
from training.learn.seen import Seen

__all__ = ["NO_WORDS", "Words", "choose_words", "own_look", "teach"]

Classifier = tuple[torch.Tensor, torch.Tensor]

#: Folds in which a probe's words are learnt anew.
_FOLDS = 3


@dataclass(frozen=True)
class Words:
    """What a probe says its looks in.

    Attributes:
        name: ``imagenet``, ``service`` or ``none``.
        speak: classes learnt from some pictures, or None where there are too few to be told apart.
        start: a head with the same words that only differences are learnt to, or None.
    """

    name: str
    speak: Callable[[Seen], Classifier | None]
    start: ProbeHead | None = None


#: Nobody looks.
NO_WORDS = Words("none", lambda pictures: None)


def choose_words(
    prefix: Prefix,
    seen: Seen,
    rng: np.random.Generator,
    start: ProbeHead | None = None,
) -> Words:
    """Choose the classes, and the start, that tell more about agreement on photos not fitted to.

    Args:
        prefix: made the features.
        seen: pictures that somebody looked at.
        rng: assigns photos to folds.
        start: a probe to start from.
    """
    own = _imagenet(prefix)
    confidence = CONFIDENCE if prefix.confidence else 0

    def service(pictures: Seen) -> Classifier | None:
        pooled = pictures.features[:, : pictures.features.shape[1] - confidence]
        return classifier_of(pooled, pictures.labels)

    candidates = [Words("imagenet", lambda pictures: own), Words("service", service)]
    if start is not None:
        candidates.append(replace(candidates[0], start=start))
        # Each of several kinds has so few answers, most of them asked where they are in doubt, that
        # a third of the photos does not tell what a start is worth; in trials it always paid.
        candidates = candidates[1:] if len({*kinds_of(seen.ladder)}) > 1 else candidates
    usable = [words for words in candidates if words.speak(seen) is not None]
    if len(usable) < 2:
        return next(iter(usable), NO_WORDS)
    photo = seen.photos
    held = (rng.permutation(int(photo.max()) + 1) % 3 == 0)[photo]
    part, other = seen.take(np.flatnonzero(~held)), seen.take(np.flatnonzero(held))
    probes = [(words, teach(part, words)) for words in usable]
    losses = [np.inf if one is None else _loss(one, other) for _, one in probes]
    return usable[int(np.argmin(losses))]


def teach(seen: Seen, chosen: Words) -> ProbeHead | None:
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
    fold, unlooked = seen.photos % _FOLDS, replace(seen, looks=None)
    teachers = []
    for number in np.unique(fold):
        words = chosen.speak(unlooked.take(np.flatnonzero(fold != number))) or classifier
        head = ProbeHead(words, spread, seen.ladder, sizes)
        teachers.append((head, np.flatnonzero(fold == number)))
    head = ProbeHead(classifier, spread, seen.ladder, sizes)
    return fit_probe(head, seen.looked(), seen.agreement, seen.ladder, teachers, chosen.start)


def own_look(head: ProbeHead, seen: Seen) -> NDArray[np.float64]:
    """Return the agreement of every rung as a probe of that very rung foresees it, (N, K).

    NaN where nobody looked.
    """
    told = predictions(head, seen.looked())
    return np.asarray(told.diagonal(axis1=1, axis2=2), dtype=np.float64)


def _imagenet(prefix: Prefix) -> Classifier | None:
    """Return MobileNetV2's own last layer, if the prefix is whole."""
    if prefix.classifier is None:
        return None
    last = prefix.classifier[-1]
    return last.weight.detach(), last.bias.detach()


def _loss(head: ProbeHead, seen: Seen) -> float:
    """Return the log-loss of probing a rung and foreseeing that very rung, in nats."""
    foreseen = own_look(head, seen)
    asked = ~np.isnan(seen.agreement) & ~np.isnan(foreseen)
    p = np.clip(foreseen[asked], 1e-6, 1.0 - 1e-6)
    return float(log_loss(np.log(p / (1.0 - p)), seen.agreement[asked]).mean())
