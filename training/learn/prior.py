"""What rungs do to recognisers in general: mean agreement on local models, before anybody asks.

``prior.json`` holds the means over the built-in photos. They are what a ladder is learnt from until
a service's own answers say otherwise; no agent is fitted to them, and none is certified by them.
After a change of ``CANDIDATES``, make the file again:

    python -m training.learn.prior
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import compare
from edge_sdk.codec import encode
from edge_sdk.ladder import CANDIDATES, REFERENCE, Ladder
from model_store.errors import UsageError
from model_store.files import read_json, write_json
from training import assets
from training.cloud.models import Model, open_model
from training.photos import View, views
from training.progress import Stages

__all__ = ["MODELS", "means", "measured", "of_size"]

Array = NDArray[np.float64]

#: Three families; how far down pictures may be scaled differs between them.
MODELS = ("efficientnet-lite0", "squeezenet", "mobilenet-v2")

_FILE = Path(__file__).with_name("prior.json")
_SCHEMA = "adacompress.prior/1"

#: Photos, spread over all of the built-in ones; more would tell little more than these.
_PHOTOS = 50
#: About what a camera's thumbnail or the paper's pictures have.
_LONG_SIDE = 512


def means(ladder: Ladder, file: Path = _FILE) -> Array:
    """Return the mean agreement of each rung, (K,).

    Raises:
        UsageError: a rung was not measured.
    """
    known = read_json(file)["agreement"]
    absent = [rung.name for rung in ladder if rung.name not in known]
    if absent:
        raise UsageError(
            f"{file.name} has no agreement of {', '.join(absent)}; allowed are the rungs of "
            "CANDIDATES. Make the file again with `python -m training.learn.prior`."
        )
    return np.array([known[rung.name] for rung in ladder])


def of_size(tables: Array, sizes: Array, known: Array) -> Array:
    """Return the mean agreement of rungs that were not measured, from rungs as large.

    Args:
        tables: (M,) mean size ratios of the rungs, such as those with other quantisation tables.
        sizes: (K,) mean size ratios of measured ones without scaling.
        known: (K,) their mean agreement.
    """
    order = np.argsort(sizes)
    return np.interp(np.log(tables), np.log(sizes[order]), known[order])


def measured(
    models: Iterable[Model],
    pictures: Sequence[View],
    ladder: Ladder,
    progress: Callable[[int], object] = lambda count: None,
) -> Array:
    """Measure mean agreement, ``any_hit``, of each rung over models and pictures, (K,)."""
    services, total = list(models), np.zeros(len(ladder))
    for picture in pictures:
        image = picture.open()
        reference = encode(image, REFERENCE)
        truths = [service.answer(reference) for service in services]
        for number, rung in enumerate(ladder):
            jpeg = encode(image, rung)
            for service, truth in zip(services, truths, strict=True):
                total[number] += compare(truth, service.answer(jpeg)).any_hit
        progress(1)
    return total / (len(services) * len(pictures))


def main() -> None:
    """Make the file again, from the installed models and photos."""
    every = assets.photos()
    paths = [every[place * len(every) // _PHOTOS] for place in range(_PHOTOS)]
    pictures = views(paths, 1, long_side=_LONG_SIDE, seed=0)
    models = [open_model(name) for name in MODELS]
    with Stages().stage("asking about the candidates", len(pictures)) as step:
        agreement = measured(models, pictures, CANDIDATES, step)
    named = zip(CANDIDATES, agreement, strict=True)
    document = {
        "schema": _SCHEMA,
        "models": [model.version for model in models],
        "photos": len(pictures),
        "agreement": {rung.name: round(float(mean), 4) for rung, mean in named},
    }
    write_json(_FILE, document)


if __name__ == "__main__":
    main()
