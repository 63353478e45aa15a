"""Features of texts without a network: `text_features`."""

from collections.abc import Iterable
from typing import Any, overload

import numpy as np
from jaxtyping import Float

from bbald_jax.extras import import_extra
from bbald_jax.learning.progress import progress
from bbald_jax.validation import assert_positive

#: The most frequent words of the pool: it bounds the memory for their axes.
_MOST_WORDS = 50_000


@overload
def text_features(
    texts: Iterable[str], outside: None = None, *, num_features: int = 256, seed: int = 0
) -> Float[np.ndarray, "N D"]: ...
@overload
def text_features(
    texts: Iterable[str], outside: Iterable[str], *, num_features: int = 256, seed: int = 0
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "M D"]]: ...
def text_features(
    texts: Iterable[str],
    outside: Iterable[str] | None = None,
    *,
    num_features: int = 256,
    seed: int = 0,
) -> Any:
    """Which words a text has, on the axes along which texts of the pool differ (TF-IDF and SVD).

      t_nw = (1 + log count of w in text n) (1 + log((1 + N) / (1 + texts with w)))   0 without w
      phi_n = A' (t_n / |t_n|),  A: the first D right singular vectors of these rows

    Words are runs of two or more letters or digits, in lower case; the 50,000 most frequent count.
    A text without a word that the pool has is a row of zeros. Languages that do not part words
    by spaces need to be split into words first. An embedding by a language model says more,
    where there is one.

    Args:
      texts: the pool, N strings.
      outside: M strings, or None; they do not change the features of the pool.
      num_features: D; as many as there are words or texts, where these are fewer.
      seed: of the randomised singular value decomposition.

    Returns:
      `[N, D]` float32, rows no longer than 1; with `outside` that and `[M, D]`. Memory beside that:
      12 bytes a different word in each text, and 8 (N + 50,000) (D + 10) bytes.

    Raises:
      ValueError: no texts, one that is no string (it is named), or no words at all.
      ModuleNotFoundError: scikit-learn is missing; the message says what installs it.

    Source: Deerwester et al., Indexing by latent semantic analysis (1990); as in
    `sklearn.feature_extraction.text.TfidfVectorizer` (`sublinear_tf=True`) and
    `sklearn.decomposition.TruncatedSVD`.
    """
    assert_positive(num_features=num_features)
    pool = _texts(texts, "texts")
    others = None if outside is None else _texts(outside, "outside")
    user = "bb.text_features"
    text = import_extra("sklearn.feature_extraction.text", extra="features", user=user)
    decomposition = import_extra("sklearn.decomposition", extra="features", user=user)
    vectorizer = text.TfidfVectorizer(sublinear_tf=True, max_features=_MOST_WORDS, dtype=np.float32)
    with progress("steps", 2 if others is None else 3) as advance:
        try:
            rows = vectorizer.fit_transform(pool)
        except ValueError as error:
            if "vocabulary" not in str(error):
                raise
            raise ValueError(
                "texts: no word of two letters or more in any of them; split them by spaces"
            ) from None
        advance()
        svd = decomposition.TruncatedSVD(min(num_features, *rows.shape), random_state=seed)
        # As for texts outside, so that equal texts have equal features: `fit_transform` rounds
        # otherwise. Of a single word there is nothing to decompose.
        project = svd.fit(rows).transform if rows.shape[1] > 1 else type(rows).toarray
        features = project(rows).astype(np.float32)
        advance()
        if others is None:
            return features
        result = project(vectorizer.transform(others)).astype(np.float32)
        advance()
        return features, result


def _texts(values: Any, name: str) -> list[str]:
    if isinstance(values, str | bytes):
        raise ValueError(f"{name}: one {type(values).__name__}, expected a list of strings")
    texts = list(values)
    if not texts:
        raise ValueError(f"{name}: no texts; pass at least one")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"{name}[{index}]: {type(text).__name__} is no string; decode it, or pass ''"
            )
    return texts
