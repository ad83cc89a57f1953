"""A learnt entropy model as the integers that both sides of the wire compute with.

The arithmetic is that of ``edge_sdk.featurecodec.entropy``. What rounding the network costs is
measured by the caller in bytes; the tables are not only the logistic densities that were learnt
with but also what the training integers showed, weighed together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_sdk.featurecodec.rangecoder import TOTAL
from training.codec.context import SCALES, Refined, scale_of

__all__ = ["context_arrays", "counts_of", "factorised_arrays", "logistic_tables", "observe"]

#: Fractional bits of the weights, and of the outputs.
_WEIGHT, _OUT = 12, 20

#: Steps of a mean, per integer.
_STEPS = 4

#: How many observations the learnt density counts for, beside those of the training integers.
_PRIOR = 40.0

Array = npt.NDArray[Any]


def counts_of(p: Array) -> npt.NDArray[np.uint32]:
    """Return tables (…, K) of integers >= 1 that sum to ``TOTAL`` and are nearly proportional."""
    kinds = p.shape[-1]
    share = p / p.sum(axis=-1, keepdims=True) * (TOTAL - kinds)
    counts = 1 + np.floor(share).astype(np.int64)
    missing = TOTAL - counts.sum(axis=-1)
    # The largest entry feels the remainder least.
    np.put_along_axis(
        counts,
        counts.argmax(axis=-1)[..., None],
        counts.max(axis=-1, keepdims=True) + missing[..., None],
        axis=-1,
    )
    return counts.astype(np.uint32)


def context_arrays(context: Refined, tables: npt.NDArray[np.uint32]) -> dict[str, Array]:
    """Return the arrays of ``entropy.npz`` of a context network.

    Args:
        context: learnt.
        tables: (scales, means, 2L + 1) from :func:`observe` or :func:`logistic_tables`.
    """
    weights = {name: getattr(context, name) for name in ("w1", "b1", "w2", "b2")}
    scale = {"w1": _WEIGHT, "b1": _WEIGHT, "w2": _WEIGHT, "b2": _OUT}
    kinds: Mapping[str, Any] = {"w1": np.int32, "b1": np.int64, "w2": np.int32, "b2": np.int64}
    fixed = {
        name: np.rint(value.detach().double().numpy() * 2.0 ** scale[name]).astype(kinds[name])
        for name, value in weights.items()
    }
    return {**fixed, "tables": tables}


def logistic_tables(limit: int) -> Array:
    """Return the probabilities (scales, 8L + 1, 2L + 1) that are learnt with."""
    scales = scale_of(torch.arange(SCALES, dtype=torch.double)).numpy()[:, None, None]
    means = (np.arange(8 * limit + 1) / _STEPS - limit)[None, :, None]
    edges = np.arange(-limit, limit) + 0.5
    below = 0.5 * (1.0 + np.tanh(0.5 * np.clip((edges - means) / scales, -60, 60)))
    ends = np.zeros((*below.shape[:2], 1))
    return np.diff(np.concatenate((ends, below, ends + 1.0), axis=2), axis=2)


def observe(context: Refined, batches: Iterable[tuple[Tensor, int]], limit: int) -> Array:
    """Return tables that training integers have corrected, (scales, 8L + 1, 2L + 1) uint32.

    Args:
        context: learnt.
        batches: integers (N, C, H, W) with the rate that they all have.
        limit: L.
    """
    p = logistic_tables(limit)
    seen = np.zeros_like(p)
    for integers, rate in batches:
        with torch.inference_mode():
            mean, scale = context(integers, rate)
        index = np.clip(np.floor(_STEPS * mean.numpy() + 0.5), -4 * limit, 4 * limit)
        columns = index.astype(np.int64) + 4 * limit
        rows = np.clip(np.floor(scale.numpy() + 0.5), 0, SCALES - 1).astype(np.int64)
        symbols = integers.numpy().astype(np.int64) + limit
        np.add.at(seen, (rows.ravel(), columns.ravel(), symbols.ravel()), 1.0)
    return counts_of(seen + _PRIOR * p)


def factorised_arrays(
    batches: Iterable[tuple[Tensor, int]], rates: int, codes: int, limit: int
) -> dict[str, Array]:
    """Return the arrays of ``entropy.npz`` without a context: what each rate and channel showed."""
    seen = np.zeros((rates, codes, 2 * limit + 1))
    for integers, rate in batches:
        symbols = integers.numpy().astype(np.int64) + limit
        channel = np.broadcast_to(np.arange(codes)[None, :, None, None], symbols.shape)
        np.add.at(seen[rate], (channel.ravel(), symbols.ravel()), 1.0)
    # Symbols never seen are as likely as a geometric fall from those that were.
    away = np.abs(np.arange(-limit, limit + 1))
    return {"counts": counts_of(seen + 0.5 * 2.0**-away)}
