"""Images as bytes that any browser shows."""

import io
from pathlib import Path

import numpy as np

from bbald_jax.experiment.image_folders import FORMATS
from bbald_jax.extras import import_extra

#: Formats that all browsers show, by suffix; others become PNG.
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}
#: Larger files go out as a JPEG whose sides are no longer than this.
_LARGE_BYTES, _LONGEST_SIDE = 4_000_000, 2_048

Picture = tuple[bytes, str]


def of_file(path: Path) -> Picture:
    """The content and the media type of an image file, as it is where a browser can show it.

    Raises:
      OSError, ValueError: it cannot be read.
    """
    media_type = MEDIA_TYPES.get(path.suffix.lower())
    if media_type is not None and path.stat().st_size <= _LARGE_BYTES:
        return path.read_bytes(), media_type
    pillow = import_extra("PIL.Image", extra="label", user="a folder of images")
    operations = import_extra("PIL.ImageOps", extra="label", user="a folder of images")
    with pillow.open(path, formats=FORMATS) as image:
        image.draft("RGB", (_LONGEST_SIDE, _LONGEST_SIDE))
        upright = operations.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits
            upright = pillow.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        upright.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        is_photo = upright.mode == "RGB" and path.stat().st_size > _LARGE_BYTES
        return _encoded(upright, "JPEG" if is_photo else "PNG")


def of_array(pixels: np.ndarray) -> Picture:
    """A PNG of an array `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, uint8."""
    pillow = import_extra("PIL.Image", extra="label", user="an array of images")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return _encoded(pillow.fromarray(np.ascontiguousarray(pixels)), "PNG")


def _encoded(image: object, kind: str) -> Picture:
    content = io.BytesIO()
    image.save(content, kind)  # pyright: ignore[reportAttributeAccessIssue]
    return content.getvalue(), f"image/{kind.lower()}"
