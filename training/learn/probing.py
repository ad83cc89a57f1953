"""Learn what a probe tells: one logistic regression over pairs (probed rung, answered rung).

Features of encoded pictures cost no paid answer. So every answered rung teaches what a probe of
each of its neighbours would have told of it, and a few answers a picture are enough. Neighbours are
of the same kind: a look at a JPEG frame tells nothing of a cropped WebP file. Rungs that are no
pictures cannot be looked at; what they would tell is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder, kinds_of
from export.network import always_agrees
from export.probe_head import ProbeHead
from training.learn.compute import one_thread
from training.learn.logistic import fit_logistic

__all__ = ["PENALTY", "REACH", "Looks", "fit_probe", "predictions"]

Array = NDArray[np.float64]

#: Ridge penalty of the standardised columns.
PENALTY = 5.0

#: The same of differences to a head that learning starts from.
START_PENALTY = 50.0

#: How many rungs of their kind apart a probed and an answered rung may be to teach.
REACH = 5


@dataclass(frozen=True)
class Looks:
    """The features of N pictures and of their K encodings.

    Attributes:
        original: float32 (N, D).
        encoded: float32 (N, K, D), NaN where nobody looked.
        size_ratio: float64 (N, K), exact.
        framed: rung -> float32 (N, D), of what its view shows of the pictures; the other rungs
            show all.
    """

    original: NDArray[np.float32]
    encoded: NDArray[np.float32]
    size_ratio: Array
    framed: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64]) -> Looks:
        """Return some of the pictures."""
        known = {rung: values[rows] for rung, values in self.framed.items()}
        return Looks(self.original[rows], self.encoded[rows], self.size_ratio[rows], known)


@one_thread()
def fit_probe(
    head: ProbeHead,
    looks: Looks,
    agreement: Array,
    ladder: Ladder,
    teachers: Sequence[tuple[ProbeHead, NDArray[np.int64]]] | None = None,
    start: ProbeHead | None = None,
) -> ProbeHead:
    """Fit the head in place and return it.

    Args:
        head: with its classifier.
        looks: of N pictures.
        agreement: (N, K) in [0, 1], NaN where the service was not asked.
        ladder: K rungs, cheapest first.
        teachers: heads whose classifiers may differ, and the rows that each compares; default is
            the head itself for all.
        start: a fitted head with the same ladder and words; only the difference to it is learnt,
            which a few answers can tell better than everything.
    """
    learnable, near = ~np.isnan(agreement) & ~np.array(always_agrees(ladder)), _near(ladder)
    pairs = [
        _pairs(teacher, looks.take(rows), agreement[rows], learnable[rows], near)
        for teacher, rows in teachers or [(head, np.arange(len(agreement)))]
    ]
    columns, target = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    mean, scale, known = _units(columns, start)
    standard = np.concatenate((np.ones((len(columns), 1)), (columns - mean) / scale), axis=1)
    ridge = np.full(standard.shape[1], PENALTY if start is None else START_PENALTY)
    ridge[0] = 1e-3 if start is None else START_PENALTY / 10.0
    fitted = known + fit_logistic(standard, target, ridge, standard @ known)
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.weight.copy_(torch.from_numpy(fitted[1:]))
        head.bias.copy_(torch.from_numpy(fitted[:1]))
    return head.eval()


@one_thread()
def predictions(head: ProbeHead, looks: Looks) -> NDArray[np.float32]:  # (N, probed K, of K)
    """Return the agreement of every rung as seen from every probed rung."""
    with torch.inference_mode():
        seen = [head(*inputs).numpy() for inputs in _inputs(looks)]
    return np.stack(seen, axis=1)


def _units(columns: Array, start: ProbeHead | None) -> tuple[Array, Array, Array]:
    """Return mean and scale (P,) of the columns, and the bias and weights (1 + P,) to start from.

    A start keeps its own units: the spread of a few new pairs would make some columns huge.
    """
    if start is not None:
        values = (start.mean, start.scale, start.bias, start.weight)
        mean, scale, bias, weight = (one.detach().double().numpy() for one in values)
        return mean, scale, np.concatenate([bias, weight])
    nothing = np.zeros(1 + columns.shape[1])
    if not len(columns):  # only rungs that agree by construction were asked about
        return np.zeros(columns.shape[1]), np.ones(columns.shape[1]), nothing
    scale = columns.std(axis=0)
    return columns.mean(axis=0), np.where(scale > 1e-6, scale, 1.0), nothing


def _near(ladder: Ladder) -> NDArray[np.bool_]:  # (probed K, of K)
    """Return which rungs a look at a rung may teach of; none where it is no picture."""
    kinds = np.array(kinds_of(ladder))
    place = np.array([int((kinds[:index] == kind).sum()) for index, kind in enumerate(kinds)])
    reach = np.abs(place[:, None] - place[None, :]) <= REACH
    seen = np.array([rung.has_pixels for rung in ladder])
    return np.asarray(reach & (kinds[:, None] == kinds[None, :]) & seen[:, None])


def _pairs(
    head: ProbeHead,
    looks: Looks,
    agreement: Array,
    learnable: NDArray[np.bool_],
    near: NDArray[np.bool_],
) -> tuple[Array, Array]:
    """Return columns (M, P) and targets (M,) of every pair within reach."""
    columns, target = [], []
    for probed, inputs in enumerate(_inputs(looks)):
        with torch.inference_mode():
            statistics = head.statistics(inputs[0], inputs[1], inputs[3])
            seen = head.columns(statistics, inputs[2]).numpy().astype(np.float64)
        cells = learnable & near[probed]
        columns.append(seen[cells])
        target.append(agreement[cells])
    return np.concatenate(columns), np.concatenate(target)


def _inputs(looks: Looks) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield (original, candidate, rung, size ratio) of all pictures, rung by rung."""
    for rung in range(looks.encoded.shape[1]):
        original = looks.framed.get(rung, looks.original)
        yield (
            torch.from_numpy(np.ascontiguousarray(original)),
            torch.from_numpy(np.ascontiguousarray(looks.encoded[:, rung])),
            torch.full((len(original),), rung, dtype=torch.long),
            torch.from_numpy(looks.size_ratio[:, rung].astype(np.float32)),
        )
