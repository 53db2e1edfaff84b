"""Image files to arrays: Pillow with a fixed list of formats, bounded pixels and every failure turned into a reason."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
"""File names that count as images; other files are ignored."""

MAX_IMAGE_PIXELS = 64_000_000
"""Images with more pixels are refused before their pixels are decoded (stricter than Pillow's own guard)."""

_MODES = {1: "L", 3: "RGB"}

_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError)


class UnreadableImageError(Exception):
    """An image file cannot be decoded; the message is the reason, without the file's name."""


def decode_image(content: bytes | bytearray, channels: int, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """Return one image as uint8 ``(C, H, W)``.

    All modes are converted (grey, palette, CMYK, 16 bit); transparency is dropped; of an animation the first frame
    counts; EXIF rotation is not applied, as in torchvision's ImageFolder.

    Args:
        content: The file's bytes.
        channels: 3 for RGB or 1 for grey.
        size: ``(H, W)`` to scale (bilinear, shorter side) and centre-crop to, or None to keep the image's size.
            An image of exactly that size is left untouched.

    Raises:
        UnreadableImageError: Not an image of a supported format, damaged, truncated, or too many pixels.

    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise UnreadableImageError(f"{image.width}x{image.height} pixels, more than {MAX_IMAGE_PIXELS}")
            fitted = _fitted(_converted(image, _MODES[channels]), size)
            pixels = np.asarray(fitted, dtype=np.uint8)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image of a supported format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"more than {MAX_IMAGE_PIXELS} pixels") from error
    except _PILLOW_ERRORS as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in `mode`, ``"RGB"`` or ``"L"``."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        raise UnreadableImageError("32-bit pixels, which have no agreed range; save it with 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert(mode)
    return image.convert(mode)


def _fitted(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Return the largest centred part with the proportions of `size`, ``(H, W)``, scaled to it.

    The same as scaling the shorter side and cropping the centre, without ever holding the enlarged image.
    """
    if size is None or (image.height, image.width) == size:
        return image
    height, width = size
    scale = min(image.height / height, image.width / width)
    box_height, box_width = height * scale, width * scale
    top, left = (image.height - box_height) / 2, (image.width - box_width) / 2
    right, bottom = min(left + box_width, image.width), min(top + box_height, image.height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
