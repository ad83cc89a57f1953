"""The two heads of the default agent, fitted together: from the picture alone, and from a probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import kinds_of
from export.network import CONFIDENCE, FactoredHead, Prefix, always_agrees
from export.probe_head import ProbeHead
from training.learn.bandit import FitReport, fit_factored
from training.learn.contest import Contest, contest
from training.learn.decisions import scores
from training.learn.policies import Fixed, Policy, Probing, Static
from training.learn.probing import predictions
from training.learn.reward import Reward
from training.learn.seen import Seen
from training.learn.vocabulary import NO_WORDS, Words, choose_words, own_look, teach

__all__ = ["NO_START", "Heads", "Start"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Start:
    """Heads of another agent on the same ladder that learning may start from, as far as given."""

    static: FactoredHead | None = None
    probe: ProbeHead | None = None


#: Learning from nothing.
NO_START = Start()


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
    _words: Words
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
        words = NO_WORDS
        if seen.looks is not None:
            words = choose_words(prefix, seen, rng, start.probe)
        return cls(
            static=static,
            probe=teach(seen, words),
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
            found = {"fixed": part.rung_means(len(held)), "static": agreement.astype(np.float64)}
            if (probe := teach(part, self._words)) is not None:
                looked = own_look(probe, other)
                found["probing"] = np.where(np.isnan(looked), found["static"], looked)
            return found

        learnable = np.where(always_agrees(seen.ladder), np.nan, seen.agreement)
        return contest(predict, learnable, seen.groups, rng)


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
