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

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edge_sdk.errors import ImageError
from edge_sdk.ladder import Rung

__all__ = ["MAX_PIXELS", "Picture", "encode", "load", "scaled_size"]

#: Largest picture that is decoded, in pixels: twice Pillow's own warning threshold is a bomb.
MAX_PIXELS = 178_956_970

_EXIF_ORIENTATION = 0x0112
_SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        image: upright, mode RGB, 8 bits.
        jpeg: the source file's bytes if it is itself an upright colour or grey JPEG, so that it
            could be uploaded untouched; None otherwise.
    """

    image: Image.Image
    jpeg: bytes | None = None


def load(source: str | Path | bytes | Image.Image | np.ndarray[Any, Any]) -> Picture:
    """Read a picture from a path, encoded bytes, a PIL image or an array.

    EXIF rotation is applied, CMYK, grey, palette and 16-bit pictures become 8-bit RGB, alpha is
    laid over white. Arrays are uint8 or uint16 of shape (H, W), (H, W, 3) or (H, W, 4), RGB order.

    Raises:
        ImageError: the source is missing, truncated, too large, empty, or no picture at all.
    """
    if isinstance(source, np.ndarray):
        return Picture(_from_array(source))
    if isinstance(source, Image.Image):
        return Picture(_upright_rgb(source))
    data, name = _read(source)
    try:
        with warnings.catch_warnings():
            # A size that Pillow only warns about is decoded; the limit below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                _check_size(opened.size, name)
                opened.load()
                return Picture(_upright_rgb(opened), data if _is_plain_jpeg(opened) else None)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not a picture that can be read ({len(data)} bytes); "
            "give a JPEG, PNG, WebP, TIFF, BMP or GIF file."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is refused: {error}; at most {MAX_PIXELS} pixels.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"{name} is damaged ({error}); {len(data)} bytes were read. Copy the file again."
        ) from error


def encode(image: Image.Image, rung: Rung) -> bytes:
    """Encode an RGB image as the JPEG file that ``rung`` describes.

    Scaled rungs are resized with Lanczos, never below one pixel a side. Metadata is not written:
    it costs bytes and tells the service more than the picture.

    Raises:
        ImageError: JPEG cannot hold the image (a side over 65,500 pixels).
    """
    if rung.scale != 1.0:
        image = image.resize(scaled_size(image.size, rung.scale), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    try:
        image.save(
            buffer,
            "JPEG",
            quality=rung.quality,
            subsampling=_SUBSAMPLING[rung.subsampling],
            optimize=rung.entropy == "optimized",
            progressive=rung.entropy == "progressive",
        )
    except (OSError, ValueError) as error:
        raise ImageError(
            f"A picture of {image.width}x{image.height} pixels cannot be encoded as JPEG "
            f"({error}); sides of 1 to 65500 are allowed."
        ) from error
    return buffer.getvalue()


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (width, height) in pixels after scaling, each at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


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
    except OSError as error:
        reason = error.strerror or type(error).__name__
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
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        upright = _eight_bits(upright)
    if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        upright = Image.alpha_composite(white, layer)
    return upright.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit, 32-bit and float grey to 8 bits.

    16-bit files use the top byte. Wider ones state no white point, so their own range is stretched.
    """
    values = np.asarray(image, dtype=np.float64)
    if image.mode.startswith("I;16") or (image.mode == "I" and 255 < values.max() <= 65535):
        values = values / 257.0
    elif values.min() < 0 or values.max() > 255:
        span = max(float(np.ptp(values)), np.finfo(np.float64).tiny)
        values = (values - values.min()) * (255.0 / span)
    return Image.fromarray(np.clip(np.rint(np.nan_to_num(values)), 0, 255).astype(np.uint8))


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
        array = (array // 257).astype(np.uint8)
    return _upright_rgb(Image.fromarray(np.ascontiguousarray(array)))
