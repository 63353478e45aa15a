"""`Model`, the seam where networks plug in: one key is one function."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array

from bbald_jax.typing import Key

Params = Any


class Model(NamedTuple):
    """A stochastic network, as pure functions; the last two only make it faster.

    Attributes:
      init: `init(key, x) -> params`, for inputs like `x [n, ...]`.
      apply: `apply(params, x, key=None) -> logits [n, C]`. With a key it is *one function drawn
        from the posterior*, the same for all n points (consistent MC dropout), whatever chunks
        they come in; without, the deterministic network.
      apply_each: `apply_each(params, x, key) -> logits [n, C]`, each point by a function of its
        own, for training. None: `apply` with a key for each point.
      draw: `draw(params, keys [K]) -> (x -> logits [n, K, C])`, the K functions that `apply` is
        with these keys, as one function. None: `apply` with one key after the other.
    """

    init: Callable[[Key, Array], Params]
    apply: Callable[..., Array]
    apply_each: Callable[[Params, Array, Key], Array] | None = None
    draw: Callable[[Params, Array], Callable[[Array], Array]] | None = None
