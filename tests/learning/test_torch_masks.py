"""Masks in PyTorch: independent entries with the right probability, fixed by their index."""

from typing import Any

import numpy as np
import pytest

from bbald_jax.learning.torch_masks import Site, draws, find_site, keep_mask

torch: Any = pytest.importorskip("torch")


def make(shape: tuple[int, ...], keep: float = 0.5, words: tuple[int, ...] = (0, 0)) -> np.ndarray:
    return keep_mask(shape, keep, words, "cpu").numpy()


def test_entries_are_those_of_splitmix():
    # The same in Python's integers, which do not wrap around.
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    step = 0x9E3779B97F4A7C15
    drawn = make((3, 5), 0.3, (7, 2))
    for i in range(3):
        for j in range(5):
            state = 0
            for word in (7, 2, i, j):
                state = mix((state + step * (word + 1)) & mask)
            assert drawn[i, j] == ((state >> 33) < round(0.3 * 2**31))


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_share_of_the_entries_is_kept(keep: float):
    error = np.sqrt(keep * (1 - keep) / 400_000)
    assert abs(make((400, 1000), keep).mean() - keep) <= 4 * error


def test_entries_are_independent():
    # Neighbours along each axis, other samples, and other places: no correlation.
    one = 2.0 * make((300, 300)) - 1
    others = [2.0 * make((300, 300), words=words) - 1 for words in ((0, 1), (1, 0), (0, 0, 0))]
    pairs = [(one[1:], one[:-1]), (one[:, 1:], one[:, :-1]), (one, one.T)]
    pairs += [(one, other) for other in others]
    for a, b in pairs:
        assert abs((a * b).mean()) < 5 / 300


def test_a_larger_mask_goes_on_where_the_smaller_one_ends():
    large = make((4, 9, 7))
    np.testing.assert_array_equal(make((2, 5, 7)), large[:2, :5])


def test_where_the_points_are():
    assert find_site((6, 4), 6, (5, 4), 5) == Site(0, 1)
    assert find_site((9, 6, 4), 6, (9, 5, 4), 5) == Site(1, 1)
    assert find_site((12, 6, 6), 6, (10, 6, 6), 5) == Site(0, 2)
    assert find_site((6, 6), 6, (6, 6), 5) == Site(None, 0)
    for shape, other in (((6, 6), (5, 5)), ((6, 4), (5,)), ((7,), (6,)), ((12,), (5,))):
        with pytest.raises(ValueError, match=r"for 6 points and .* for 5, so that they cannot"):
            find_site(shape, 6, other, 5)


def test_which_operations_draw():
    # Those of a GPU cannot run here; their schemas are the same everywhere.
    aten = torch.ops.aten
    for rate, is_random in ((0.0, False), (0.1, True)):
        fused = aten._scaled_dot_product_flash_attention.default
        assert draws(fused, (None, None, None, rate), {}) == is_random
        assert draws(aten._cudnn_rnn.default, (), {"dropout": rate, "train": True}) == is_random
        assert not draws(aten._cudnn_rnn.default, (), {"dropout": rate, "train": False})
        assert not draws(aten._fused_sdp_choice.default, (None, None, None, None, rate), {})
        assert torch.Tag.nondeterministic_seeded in {*fused.tags} & {*aten._cudnn_rnn.default.tags}
    assert not draws(aten._scaled_dot_product_flash_attention.default, (None, None, None), {})
    assert draws(aten.rand.default, ([3],), {})
