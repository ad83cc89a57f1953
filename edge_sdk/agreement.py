"""Does the answer to a compressed upload agree with the answer to the reference?

Four metrics, because one number flatters: the paper's text defines Eq. (1), its code counts a hit
when the reference's best label occurs anywhere in the answer (Eq. 1 with k = 1).

    >>> from edge_sdk.agreement import compare
    >>> compare([("cat", 0.9), ("dog", 0.4)], [("dog", 0.8), ("cat", 0.3)])
    Agreement(any_hit=1.0, eq1=1.0, top1=0.0, jaccard=1.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_sdk.backends.base import Label

__all__ = ["ANY_HIT", "METRICS", "TOP", "Agreement", "compare", "eq1"]

#: Eq. (2): labels of the compressed answer that count, best first.
TOP = 5

#: The default metric.
ANY_HIT = "any_hit"

METRICS = (ANY_HIT, "eq1", "top1", "jaccard")


@dataclass(frozen=True, slots=True)
class Agreement:
    """The four agreement metrics of one pair of answers, each in [0, 1].

    Attributes:
        any_hit: 1 if the reference's best label is among the answer's best five; the paper's code.
        eq1: share of the reference's labels found among the answer's best five; Eq. (1)-(4).
        top1: 1 if both best labels are the same.
        jaccard: intersection over union of the two label sets.
    """

    any_hit: float
    eq1: float
    top1: float
    jaccard: float


def compare(
    reference: Sequence[Label | tuple[str, float]],
    compressed: Sequence[Label | tuple[str, float]],
    min_score: float = 0.0,
) -> Agreement:
    """Compare two answers, both best label first.

    Args:
        reference: labels of the reference upload, (name, score in [0, 1]).
        compressed: labels of the compressed upload.
        min_score: labels below it do not count; 0 is the paper's mode. No label left on either
            side is agreement, on one side only is disagreement.
    """
    wanted, found = _names(reference, min_score), _names(compressed, min_score)
    if not wanted or not found:
        same = float(not wanted and not found)
        return Agreement(same, same, same, same)
    union = set(wanted) | set(found)
    return Agreement(
        any_hit=eq1(wanted, found, k=1),
        eq1=eq1(wanted, found, k=len(wanted)),
        top1=float(wanted[0] == found[0]),
        jaccard=len(set(wanted) & set(found)) / len(union),
    )


def eq1(reference: Sequence[str], compressed: Sequence[str], k: int) -> float:
    r"""Return Eq. (1): the mean over the first ``k`` reference labels of a hit in the top five.

    .. math:: A = \frac{1}{k} \sum_k \max_j d(l_j, g_k)
    """
    best = set(compressed[:TOP])
    return sum(label in best for label in reference[:k]) / k


def _names(labels: Sequence[Label | tuple[str, float]], min_score: float) -> list[str]:
    # A detector names a class once per instance; agreement is about the classes.
    return list(dict.fromkeys(label[0] for label in labels if label[1] >= min_score))
