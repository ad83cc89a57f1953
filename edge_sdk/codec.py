r"""Read any picture safely, and encode a rung: the only place where Pillow touches a file.

>>> from PIL import Image
>>> from edge_sdk.codec import encode, load
>>> from edge_sdk.ladder import REFERENCE
>>> picture = load(Image.new("RGBA", (64, 48), (255, 0, 0, 0)))
>>> picture.image.mode, picture.image.size
('RGB', (64, 48))
>>> encode(picture.image, REFERENCE)[:2]
b'\xff\xd8'
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_sdk.backends.base import Box
from edge_sdk.errors import ImageError
from edge_sdk.jpeg import without_metadata
from edge_sdk.rung import FEATURES, WEBP, Rung
from edge_sdk.view import View
from model_store.errors import UsageError

__all__ = [
    "MAX_PIXELS",
    "Picture",
    "Scales",
    "Source",
    "Streams",
    "as_file",
    "encode",
    "kept",
    "load",
    "scaled_size",
    "shown",
    "upload_size",
]

#: What a picture may be given as: a path, an encoded file, a PIL image, an array.
Source = str | Path | bytes | Image.Image | np.ndarray[Any, Any]

#: Largest picture that is decoded, in pixels: twice Pillow's own warning threshold is a bomb.
MAX_PIXELS = 178_956_970

_16_TO_8_BITS = 257.0
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Effort of the WebP encoder, 0 to 6. On 56 photos 5 took 4 % fewer bytes than 4 for a tenth more
#: time; 6 took another 4 %, for two thirds more time than 5.
_WEBP_METHOD = 5
_SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: upright, mode RGB, 8 bits.
        jpeg: the source file without metadata if it is an upright colour or grey JPEG, so that it
            could be uploaded untouched; None otherwise.
    """

    image: Image.Image
    jpeg: bytes | None = None


def load(source: Source) -> Picture:
    """Read a picture from a path, encoded bytes, a PIL image or an array.

    EXIF rotation is applied, CMYK, grey, palette and 16-bit pictures become 8-bit RGB, alpha is
    laid over white. Arrays are uint8 or uint16 of shape (H, W), (H, W, 3) or (H, W, 4), RGB order.

    Raises:
        ImageError: the source is missing, truncated, too large, empty, or no picture at all.
    """
    if isinstance(source, np.ndarray):
        return Picture(_from_array(source))
    if isinstance(source, Image.Image):
        with _reading("The given image"):  # its file may not have been read yet
            return Picture(_upright_rgb(source))
    data, name = _read(source)
    with _reading(f"{name} ({len(data)} bytes)"), Image.open(io.BytesIO(data)) as opened:
        _check_size(opened.size, name)
        opened.load()
        return Picture(
            _upright_rgb(opened), without_metadata(data) if _is_plain_jpeg(opened) else None
        )


def kept(source: Source) -> tuple[Source, int]:
    """Return a picture to keep for later, and the bytes of memory that it takes.

    Arrays and images are copied: a camera writes the next frame where it wrote this one. A path
    stays a path.

    Raises:
        ImageError: the source is no picture at all.
    """
    if isinstance(source, np.ndarray):
        return source.copy(), source.nbytes
    if isinstance(source, Image.Image):
        with _reading("The given image"):
            return source.copy(), 4 * source.width * source.height  # Pillow pads a pixel to four
    if isinstance(source, bytes):
        return source, len(source)
    if not isinstance(source, str | Path):
        _read(source)
    return source, 0


def as_file(source: Source) -> bytes:
    """Return a picture as a file that loses nothing: encoded ones as they are, others as PNG.

    Raises:
        ImageError: see :func:`load`; what an encoded file holds is not looked at.
    """
    if not isinstance(source, np.ndarray | Image.Image):
        return _read(source)[0]
    buffer = io.BytesIO()
    load(source).image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Streams(Protocol):
    """A learned codec, see ``edge_sdk.featurecodec.FeatureCodec``."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits."""

    def integers(self, image: Image.Image) -> NDArray[np.int8]:
        """Return an RGB picture's quantised features at every rate, (R, C, H, W)."""

    def encode(self, integers: NDArray[np.int8], rate: int) -> bytes:
        """Return the stream of one rate."""


class Scales:
    """One RGB picture at several scales and views, each made once and kept with the object.

    Resizing costs several times what encoding does, and a ladder has many rungs of few scales.

    Args:
        image: the picture, which must not change.
        codec: encodes the rungs of features, if there are any; its engine runs once a picture.
    """

    def __init__(self, image: Image.Image, codec: Streams | None = None) -> None:
        self._made = {1.0: image}
        self._views: dict[View, Scales] = {}
        self._codec = codec
        self._integers: NDArray[np.int8] | None = None

    def at(self, scale: float) -> Image.Image:
        """Return the picture resized with Lanczos, never below one pixel a side."""
        if scale not in self._made:
            image = self._made[1.0]
            size = scaled_size(image.size, scale)
            self._made[scale] = image.resize(size, Image.Resampling.LANCZOS)
        return self._made[scale]

    def seen(self, view: View | None) -> Scales:
        """Return the scales of what a service's own preparation makes of the picture.

        That is a square of ``view.resized`` pixels, so that the same preparation leaves its middle
        as it is. What it cuts off is made of the last rows and columns that it keeps: in trials
        that took an eighth fewer bytes than the picture's own margin, for the same answers.
        """
        if view is None:
            return self
        if view not in self._views:
            self._views[view] = Scales(_framed(self._made[1.0], view))
        return self._views[view]

    def stream(self, rung: Rung) -> bytes:
        """Return the stream of a rung of features.

        Raises:
            UsageError: its codec is not at hand.
        """
        if self._codec is None or self._codec.id != rung.codec or rung.rate is None:
            there = "none" if self._codec is None else self._codec.id
            raise UsageError(
                f"The rung {rung.name} needs the codec {rung.codec}; there is {there}. Use the "
                "agent that brings it, or leave out its rungs."
            )
        if self._integers is None:
            self._integers = self._codec.integers(self._made[1.0])
        return self._codec.encode(self._integers, rung.rate)


def encode(picture: Image.Image | Scales, rung: Rung) -> bytes:
    """Encode an RGB picture as the file, JPEG, WebP or features, that ``rung`` describes.

    Metadata is not written: it costs bytes and tells the service more than the picture.

    Args:
        picture: give the same ``Scales`` for several rungs, and each scale is made once.
        rung: the encoder setting.

    Raises:
        ImageError: the format cannot hold the image (a side over 65,500 pixels in JPEG, 16,383 in
            WebP).
        UsageError: the rung's codec is not at hand.
    """
    scales = picture if isinstance(picture, Scales) else Scales(picture)
    if rung.format == FEATURES:
        return scales.stream(rung)
    image = scales.seen(rung.view).at(rung.scale)
    if rung.format == WEBP:
        return _save_webp(image, rung.quality)
    with contextlib.suppress(OSError, ValueError):
        return _save(image, rung, rung.entropy)
    # Pillow codes optimised and progressive files into one buffer of a guessed size, which noise
    # at a high quality outgrows. Plain coding has no such limit and decodes to the same pixels.
    try:
        return _save(image, rung, "plain")
    except (OSError, ValueError) as error:
        raise ImageError(
            f"A picture of {image.width}x{image.height} pixels cannot be encoded as JPEG "
            f"({error}); sides of 1 to 65500 are allowed."
        ) from error


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (width, height) in pixels after scaling, each at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def upload_size(size: tuple[int, int], rung: Rung) -> tuple[int, int]:
    """Return (width, height) in pixels of what ``rung`` makes of a picture of ``size``."""
    view = rung.view
    return scaled_size(size if view is None else (view.resized, view.resized), rung.scale)


def shown(size: tuple[int, int], rung: Rung) -> Box | None:
    """Return the part of a picture of ``size`` that a rung's upload shows, None for all of it."""
    return None if rung.view is None else Box(*rung.view.place(size))


def _framed(image: Image.Image, view: View) -> Image.Image:
    before = (view.resized - view.side) // 2
    around = (before, view.resized - view.side - before)
    return Image.fromarray(np.pad(view.pixels(image), (around, around, (0, 0)), mode="edge"))


def _save_webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, "WEBP", quality=quality, method=_WEBP_METHOD, exif=b"", icc_profile=b"")
    except (OSError, ValueError) as error:
        raise ImageError(
            f"A picture of {image.width}x{image.height} pixels cannot be encoded as WebP "
            f"({error}); sides of 1 to 16383 are allowed."
        ) from error
    return buffer.getvalue()


def _save(image: Image.Image, rung: Rung, entropy: str) -> bytes:
    buffer = io.BytesIO()
    # Pillow takes tables in raster order, and would scale them once more if it knew the quality.
    tables = rung.scaled_tables
    steps: dict[str, Any] = {"quality": rung.quality} if tables is None else {"qtables": tables}
    image.save(
        buffer,
        "JPEG",
        **steps,
        subsampling=_SUBSAMPLING[rung.subsampling],
        optimize=entropy == "optimized",
        progressive=entropy == "progressive",
        comment=b"",  # otherwise Pillow writes the source file's
    )
    return buffer.getvalue()


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow says about a file into an ImageError."""
    with warnings.catch_warnings():
        # Pillow warns of sizes (the limit here is ours) and of damage that it can live with.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            yield
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{name} is not a picture that can be read; give a JPEG, PNG, WebP, TIFF, BMP or "
                "GIF file."
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name} is refused: {error}; at most {MAX_PIXELS} pixels.") from error
        except Exception as error:  # a damaged file makes parsers raise anything
            reason = str(error) or type(error).__name__
            raise ImageError(f"{name} is damaged: {reason}. Copy the file again.") from error


def _read(source: str | Path | bytes) -> tuple[bytes, str]:
    if isinstance(source, bytes):
        return source, "The picture given as bytes"
    if not isinstance(source, str | Path):
        raise ImageError(
            f"A {type(source).__name__} is not a picture; give a path, bytes, a PIL image or an "
            "array."
        )
    try:
        return Path(source).read_bytes(), f"Picture {str(source)!r}"
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"Picture {str(source)!r} cannot be read: {reason}.") from error


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{name} has {size[0]}x{size[1]} pixels; at most {MAX_PIXELS} are decoded. Scale it "
            "down first."
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"The picture has no pixels ({image.width}x{image.height}).")
    # Not ImageOps.exif_transpose: it writes the EXIF data anew, and fails where that is damaged.
    turn = _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    upright = image if turn is None else image.transpose(turn)
    if upright.mode.startswith(("I", "F")):
        upright = _eight_bits(upright)
    if upright.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        upright = Image.alpha_composite(white, layer)
    rgb = upright.convert("RGB")
    rgb.info.clear()  # the orientation has been used; the rest is nobody's business
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit, 32-bit and float grey to 8 bits.

    16-bit files have their white at 65535. Wider ones state no white, so their own range is
    stretched.
    """
    values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if image.mode.startswith("I;16") or (image.mode == "I" and 255 < high <= 65535):
        values = values / _16_TO_8_BITS
    elif low < 0 or high > 255:
        values = (values - low) * (255.0 / ((high - low) or 1.0))
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _is_plain_jpeg(image: Image.Image) -> bool:
    turned = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
    return image.format == "JPEG" and image.mode in ("RGB", "L") and not turned


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not shape_fits or array.dtype not in (np.uint8, np.uint16) or array.size == 0:
        raise ImageError(
            f"An array of shape {array.shape} and dtype {array.dtype} is not a picture; allowed "
            "are non-empty uint8 or uint16 arrays of shape (H, W), (H, W, 3) or (H, W, 4)."
        )
    if array.dtype == np.uint16:
        array = np.rint(array / _16_TO_8_BITS).astype(np.uint8)
    return _upright_rgb(Image.fromarray(np.ascontiguousarray(array)))
