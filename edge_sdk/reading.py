"""Read any picture safely: one of the two modules where Pillow touches a file.

The other, ``edge_sdk.codec``, encodes rungs. Elsewhere a file's size is looked up in its header at
most, see ``edge_sdk.backends.limits``.

>>> from PIL import Image
>>> from edge_sdk.reading import load
>>> picture = load(Image.new("RGBA", (64, 48), (255, 0, 0, 0)))
>>> picture.image.mode, picture.image.size
('RGB', (64, 48))
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from edge_sdk.errors import ImageError
from edge_sdk.jpeg import without_metadata

__all__ = ["MAX_PIXELS", "Picture", "Source", "as_file", "kept", "load"]

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
        jpeg = without_metadata(data) if _is_plain_jpeg(opened) else None
        return Picture(_upright_rgb(opened, own=True), jpeg)


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


def _upright_rgb(image: Image.Image, *, own: bool = False) -> Image.Image:
    """Return an image that nobody else holds; one that was ``own`` before is not copied."""
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
    ready = upright.mode == "RGB" and (own or upright is not image)
    rgb = upright if ready else upright.convert("RGB")
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
    return _upright_rgb(Image.fromarray(np.ascontiguousarray(array)), own=True)
