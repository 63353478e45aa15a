"""Features of images without a network: `image_features`."""

from collections.abc import Callable
from typing import Any, overload

import numpy as np
from jaxtyping import Float

from bbald_jax.extras import import_extra
from bbald_jax.learning.progress import progress
from bbald_jax.validation import as_numpy, assert_positive

_ORIENTATIONS = 9
#: A side has at most so many cells, of at least `_SMALLEST_CELL` pixels; a block 2 x 2 cells.
_MOST_CELLS = 8
_SMALLEST_CELL = 2
#: The principal axes come from so many images: more do not change them.
_MOST_FITTED = 20_000
#: Images whose histograms are held at a time.
_CHUNK_SIZE = 2_000


@overload
def image_features(
    images: Any, outside: None = None, *, num_features: int = 64, seed: int = 0
) -> Float[np.ndarray, "N D"]: ...
@overload
def image_features(
    images: Any, outside: Any, *, num_features: int = 64, seed: int = 0
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "M D"]]: ...
def image_features(
    images: Any, outside: Any = None, *, num_features: int = 64, seed: int = 0
) -> Any:
    """Which way edges run in which part of an image: HOG, on its principal axes.

      h_n = HOG(image n): in each cell of pixels a histogram of the gradients' orientations, 9 bins
            weighted by their lengths; each block of 2 x 2 cells normalised (L2-Hys)
      phi_n = A' (h_n - mean of h),  A: the first D principal axes of h

    Cells have ceil(side / 8) pixels a side, at least 2, so that there are at most 1,764 numbers an
    image: 4 x 4 pixels for images of 28 or 32, 28 x 28 for 224. Images are padded with their
    outermost pixels to whole cells. Of several channels, each pixel takes the steepest gradient.
    Brightness and contrast drop out: shapes remain. A network that was trained on images like
    these says more, where there is one.

    Args:
      images: the pool, `[N, H, W]` or `[N, H, W, c]` (channels last), at least 4 x 4 pixels; finite
        numbers on any scale, unsigned bytes too.
      outside: images with the same axes, or None; they do not change the features of the pool.
      num_features: D; at most N - 1 (but 1) and the length of h, where these are fewer.
      seed: chooses the 20,000 images whose principal axes are computed, where N is larger.

    Returns:
      `[N, D]` float32; with `outside` that and `[M, D]`.
      Memory beside that: 4 bytes times 22,000 times the length of h.

    Raises:
      ValueError: NaN or infinite (it names the image), other axes, too few pixels, sizes below 1.
      ModuleNotFoundError: scikit-image or scikit-learn is missing; the message says what installs
        them.

    Source: Dalal and Triggs, Histograms of oriented gradients for human detection (2005), as
    `skimage.feature.hog`; principal axes: `sklearn.decomposition.PCA`.
    """
    assert_positive(num_features=num_features)
    pool = _images(images, "images")
    others = None if outside is None else _images(outside, "outside")
    if others is not None and others.shape[1:] != pool.shape[1:]:
        raise ValueError(
            f"outside: images of {others.shape[1:]}, those of the pool {pool.shape[1:]}; "
            "bring both to one size"
        )
    decomposition = import_extra(
        "sklearn.decomposition", extra="features", user="bb.image_features"
    )
    chosen = np.arange(len(pool))
    if len(pool) > _MOST_FITTED:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(pool), _MOST_FITTED, replace=False))
    left = np.delete(np.arange(len(pool)), chosen)
    with progress("images", len(pool) + (0 if others is None else len(others))) as advance:
        histograms = _histograms(pool, chosen, advance)
        num_features = min(num_features, max(1, len(chosen) - 1), histograms.shape[1])
        # By the covariance, where there are many rows: fast, exact, and without a copy of them.
        is_tall = len(histograms) > histograms.shape[1]
        solver = "covariance_eigh" if is_tall else "full"
        with np.errstate(invalid="ignore"):  # shares of a variance that may be 0
            pca = decomposition.PCA(num_features, svd_solver=solver).fit(
                histograms if len(histograms) > 1 else np.repeat(histograms, 2, axis=0)
            )
        features = np.empty((len(pool), num_features), np.float32)
        features[chosen] = pca.transform(histograms)
        del histograms

        def project(some: np.ndarray, rows: np.ndarray, result: np.ndarray) -> np.ndarray:
            for start in range(0, len(rows), _CHUNK_SIZE):
                part = rows[start : start + _CHUNK_SIZE]
                result[part] = pca.transform(_histograms(some, part, advance))
            return result

        project(pool, left, features)
        if others is None:
            return features
        result = np.empty((len(others), num_features), np.float32)
        return features, project(others, np.arange(len(others)), result)


def _images(values: Any, name: str) -> np.ndarray:
    """`[N, H, W, c]`, of numbers that are finite."""
    array = as_numpy(values, name)
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or 0 in array.shape or min(array.shape[1:3]) < 2 * _SMALLEST_CELL:
        raise ValueError(
            f"{name}: shape {np.shape(values)}, expected [N, H, W] or [N, H, W, c], channels last, "
            "with at least 4 x 4 pixels; pass smaller ones to bb.graph_features, or enlarge them"
        )
    if array.dtype.kind not in "fbiu" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name}: dtype {array.dtype} does not hold real numbers; pass floats")
    for start in range(0, len(array), _CHUNK_SIZE):
        is_finite = np.isfinite(array[start : start + _CHUNK_SIZE].astype(np.float32))
        if not is_finite.all():
            row = start + int((~is_finite).any(axis=(1, 2, 3)).argmax())
            raise ValueError(f"{name}[{row}]: NaN or infinite; mend the image, or leave it out")
    return array


def _histograms(
    images: np.ndarray, rows: np.ndarray, advance: Callable[[], Any]
) -> Float[np.ndarray, "n L"]:
    """HOG of some images."""
    hog = import_extra("skimage.feature", extra="features", user="bb.image_features").hog
    sides = images.shape[1:3]
    cell = [max(_SMALLEST_CELL, -(-side // _MOST_CELLS)) for side in sides]
    missing = [-side % size for side, size in zip(sides, cell, strict=True)]
    padding = [*((few // 2, few - few // 2) for few in missing), (0, 0)]
    results = []
    for row in rows:
        image = np.pad(images[row].astype(np.float32), padding, mode="edge")
        results.append(
            hog(
                image,
                orientations=_ORIENTATIONS,
                pixels_per_cell=cell,
                cells_per_block=(2, 2),
                channel_axis=-1,
            )
        )
        advance()
    return np.stack(results)
