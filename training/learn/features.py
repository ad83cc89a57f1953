"""Features of views: the frozen prefix over every picture, once; what is known is not computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.codec import Scales, encode, framed
from edge_sdk.ladder import Ladder, Rung
from edge_sdk.palette import palette_of
from edge_sdk.preprocess import to_input
from edge_sdk.reading import load
from edge_sdk.view import View as Seen
from export.network import WHOLE, Prefix
from model_store.errors import EnvironmentMissing, UsageError
from training import assets
from training.labels.ledger import picture_key
from training.labels.schema import pixels_text
from training.learn.backbone import backbone
from training.learn.compute import CUDA_PROVIDER, provider_of
from training.learn.feature_cache import FeatureCache, identity
from training.photos import View

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Features", "extract", "extract_framed", "extract_looks", "load_prefix"]

_log = logging.getLogger("training.features")

#: Pictures under way at once; decoding, resizing and the runtime let go of the interpreter's lock.
WORKERS = 2

#: Inputs kept for the parity gate.
KEEP = 48


@dataclass(frozen=True)
class Features:
    """Features of N views, with some of the inputs they came from.

    Attributes:
        values: float32 (N, D).
        inputs: uint8 (M, S, S, 3), the engine's inputs of ``rows``, for the parity gate.
        rows: int64 (M,), which views the inputs belong to.
        palettes: float32 (N, B), the views' colours for the scenery's signature, or None.
    """

    values: NDArray[np.float32]
    inputs: NDArray[np.uint8]
    rows: NDArray[np.int64]
    palettes: NDArray[np.float32] | None = None

    def take(self, rows: NDArray[np.int64]) -> Features:
        """Return some of the views, each named once, with those of the inputs that are theirs."""
        place = {row: new for new, row in enumerate(rows.tolist())}
        kept = [number for number, row in enumerate(self.rows.tolist()) if row in place]
        moved = np.array([place[row] for row in self.rows[kept].tolist()], dtype=np.int64)
        return Features(self.values[rows], self.inputs[kept], moved)


def load_prefix(
    weights: str = "auto",
    *,
    cut: int = WHOLE,
    side: int = 224,
    confidence: bool = False,
    precision: str = "fp32",
) -> Prefix:
    """Return MobileNetV2's prefix with the official ImageNet weights.

    Args:
        weights: ``asset`` for the installed file, ``torchvision`` for the online source, ``auto``
            for the file if it is installed and the online source otherwise.
        cut: blocks kept, 1 to 19.
        side: input side in pixels.
        confidence: append the statistics of MobileNetV2's own classifier.
        precision: ``int8`` or ``fp32``, in which the features are computed, here and on devices.

    Raises:
        EnvironmentMissing: the weights are neither installed nor reachable.
    """
    if weights not in ("auto", "asset", "torchvision"):
        raise UsageError(f"Weights {weights!r} are unknown; allowed: auto, asset, torchvision.")
    try:
        path = None if weights == "torchvision" else assets.find("mobilenet-v2")
    except EnvironmentMissing:
        if weights == "asset":
            raise
        path = None
    try:
        return Prefix(path, cut=cut, side=side, confidence=confidence, precision=precision)
    except OSError as error:  # urllib's errors are OSErrors
        raise EnvironmentMissing(
            f"MobileNetV2's weights are not installed and cannot be downloaded ({error}); run "
            f"`{assets.COMMAND}`."
        ) from error


def extract(
    prefix: Prefix,
    views: Sequence[View],
    *,
    rng: Generator,
    cache: FeatureCache | None = None,
    progress: Callable[[int], object] = lambda count: None,
    device: str = "cpu",
) -> Features:
    """Compute the features of ``views`` with the frozen prefix.

    Args:
        prefix: the torch module.
        views: opened one by one, not kept.
        rng: chooses the inputs that are kept for the parity gate.
        cache: has features computed before, and gets the others.
        progress: called with the number of views done since the last call.
        device: see ``training.learn.compute.provider_of``.
    """
    rows = np.sort(rng.choice(len(views), size=min(KEEP, len(views)), replace=False))
    wanted = set(rows.tolist())
    eye = _Eye(prefix, cache, device)

    def one(index: int) -> tuple[Any, Any, Any]:
        image = views[index].open()
        features = eye.see(image, {_ORIGINAL: lambda: image})
        pixels = to_input(image, prefix.side) if index in wanted else None
        return features, palette_of(image), pixels

    values, palettes, inputs = [], [], []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="features") as pool:
        for value, palette, pixels in pool.map(one, range(len(views))):
            values.append(value)
            palettes.append(palette)
            inputs += [] if pixels is None else [pixels]
            progress(1)
    return Features(np.concatenate(values), np.concatenate(inputs), rows, np.stack(palettes))


def extract_looks(
    prefix: Prefix,
    views: Sequence[View],
    ladder: Ladder,
    *,
    cache: FeatureCache | None = None,
    progress: Callable[[int], object] = lambda count: None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Compute the features of every encoding of ``views``, float32 (N, K, D).

    It is what a device does when it probes: encode, decode, the one resize, the prefix. Rungs that
    are no pictures cannot be looked at: NaN.

    Args:
        prefix: the torch module.
        views: opened one by one, not kept.
        ladder: K rungs.
        cache: has features computed before, and gets the others.
        progress: called with the number of views done since the last call.
        device: see ``training.learn.compute.provider_of``.
    """
    eye, pictures = _Eye(prefix, cache, device), [rung for rung in ladder if rung.has_pixels]
    seen, names = [rung.has_pixels for rung in ladder], [pixels_text(rung) for rung in pictures]

    def one(view: View) -> NDArray[np.float32]:
        image = view.open()
        scales = Scales(image)
        candidates = {
            name: partial(_encoded, scales, rung)
            for name, rung in zip(names, pictures, strict=True)
        }
        found = eye.see(image, candidates)[[list(candidates).index(name) for name in names]]
        looks = np.full((len(ladder), found.shape[1]), np.nan, dtype=np.float32)
        looks[seen] = found
        return looks

    looks = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="looks") as pool:
        for values in pool.map(one, views):
            looks.append(values)
            progress(1)
    return np.stack(looks)


def extract_framed(
    prefix: Prefix,
    views: Sequence[View],
    ladder: Ladder,
    *,
    cache: FeatureCache | None = None,
    progress: Callable[[int], object] = lambda count: None,
    device: str = "cpu",
) -> dict[Seen, NDArray[np.float32]]:
    """Compute the features of what the services' views of a ladder show of ``views``, unencoded.

    Args:
        prefix: the torch module.
        views: opened one by one, not kept.
        ladder: its rungs' views are meant.
        cache: has features computed before, and gets the others.
        progress: called with the number of views done since the last call.
        device: see ``training.learn.compute.provider_of``.

    Returns:
        By the rungs' view, float32 (N, D).
    """
    eye, wanted = _Eye(prefix, cache, device), list(dict.fromkeys(r.view for r in ladder if r.view))

    def one(picture: View) -> NDArray[np.float32]:
        image = picture.open()
        return eye.see(image, {f"framed {view}": partial(framed, image, view) for view in wanted})

    found = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="views") as pool:
        for values in pool.map(one, views) if wanted else ():
            found.append(values)
            progress(1)
    return {view: np.stack([row[place] for row in found]) for place, view in enumerate(wanted)}


#: What the cache calls the picture itself, among its encodings.
_ORIGINAL = ""


class _Eye:
    """The prefix as devices run it, and what it saw before.

    On ONNX Runtime: several times faster than torch on a CPU. That torch agrees with a prefix in
    fp32 is what the parity gate proves, with the torch prefix and the inputs kept.
    """

    def __init__(self, prefix: Prefix, cache: FeatureCache | None, device: str) -> None:
        model = backbone(prefix, assets.cache_dir() / "prefix")
        self._session = _session(model, provider_of(device, prefix.precision), device == "cuda")
        gpu = self._session.get_providers()[0] == CUDA_PROVIDER
        self._side, self._cache, self._identity = prefix.side, cache, identity(model, gpu)

    def see(
        self, image: Image.Image, looks: Mapping[str, Callable[[], Image.Image]]
    ) -> NDArray[np.float32]:  # (len(looks), D)
        """Return the features of some looks at a picture, each made only if it is not known."""
        if self._cache is None:
            return np.stack([self._features(look()) for look in looks.values()])
        key = picture_key(image)
        known = self._cache.get(self._identity, key)
        fresh = {name: self._features(looks[name]()) for name in looks if name not in known}
        self._cache.put(self._identity, key, fresh)
        return np.stack([known[name] if name in known else fresh[name] for name in looks])

    def _features(self, image: Image.Image) -> NDArray[np.float32]:
        pixels = to_input(image, self._side)
        return np.asarray(self._session.run(None, {"image": pixels})[0][0])


def _session(model: bytes, provider: str, strict: bool) -> Any:
    """Open the prefix on a provider; the runtime itself falls back to the CPU without a word."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # pictures go through in parallel instead
    providers: list[Any] = ["CPUExecutionProvider"]
    if provider == CUDA_PROVIDER:
        getattr(onnxruntime, "preload_dlls", lambda: None)()
        providers.insert(0, (CUDA_PROVIDER, {"use_tf32": "0"}))  # fp32, as devices compute it
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    if session.get_providers()[0] != provider:
        said = (
            "ONNX Runtime cannot start CUDA. Its messages above name the library that is missing; "
            "CUDA and cuDNN must be those that it was built for."
        )
        if strict:
            raise EnvironmentMissing(f"--device cuda: {said} Or take --device cpu or auto.")
        _log.warning("%s Features are computed on the CPU.", said)
    return session


def _encoded(scales: Scales, rung: Rung) -> Image.Image:
    return load(encode(scales, rung)).image
