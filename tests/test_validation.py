"""The edges: every array ends as normalised log-probabilities or as a ValueError that helps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import in_float64
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bbald_jax as bb
from bbald_jax import validation

ENTRIES: dict[str, Callable[[Any], jax.Array]] = {
    "probs": bb.from_probs,
    "logits": bb.from_logits,
    "log_probs": bb.check_log_probs,
}
EDGE = pytest.mark.parametrize("entry", list(ENTRIES))

# Two points, two samples, three classes.
PROBS = np.array(
    [
        [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]],
        [[0.125, 0.125, 0.75], [0.2, 0.3, 0.5]],
    ]
)
with np.errstate(divide="ignore"):
    LOG_PROBS = np.log(PROBS)
INPUTS = {"probs": PROBS, "logits": LOG_PROBS + 7.0, "log_probs": LOG_PROBS}


class OnlyArray:
    """An array of some framework that NumPy can convert, and nothing else."""

    def __init__(self, array: np.ndarray):
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype)


class OnlyDLPack:
    """An array of some framework that only exports itself by DLPack."""

    def __init__(self, array: np.ndarray):
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class OnTheAccelerator:
    """What a torch tensor on a GPU, in the middle of training, does: `detach`, then `cpu`."""

    def __init__(self, array: np.ndarray, moves: tuple[str, ...] = ()):
        self._array, self._moves = array, moves

    def detach(self) -> "OnTheAccelerator":
        return OnTheAccelerator(self._array, (*self._moves, "detach"))

    def cpu(self) -> "OnTheAccelerator":
        return OnTheAccelerator(self._array, (*self._moves, "cpu"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._moves != ("detach", "cpu"):
            raise TypeError("no NumPy view")
        return np.array(self._array, dtype)


def with_value(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def assert_normalised(log_probs: jax.Array) -> None:
    assert isinstance(log_probs, jax.Array)
    assert log_probs.ndim == 3
    assert log_probs.dtype == jnp.float32
    sums = np.exp(np.asarray(log_probs, np.float64)).sum(axis=-1)
    # Rounding log p to float32 moves p by its own relative error.
    np.testing.assert_allclose(sums, 1, rtol=0, atol=1e-5)


@EDGE
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(np.asarray, id="numpy"),
        pytest.param(np.asfortranarray, id="fortran-order"),
        pytest.param(lambda array: array.astype(">f4"), id="big-endian"),
        pytest.param(lambda array: array.astype(np.longdouble), id="longdouble"),
        pytest.param(lambda array: array.tolist(), id="list"),
        pytest.param(lambda array: jnp.asarray(array, jnp.float32), id="jax"),
        pytest.param(OnlyArray, id="array-protocol"),
        pytest.param(OnlyDLPack, id="dlpack"),
        pytest.param(OnTheAccelerator, id="detach-and-cpu"),
    ],
)
def test_arrays_of_any_framework_are_converted(entry: str, wrap: Callable[[np.ndarray], Any]):
    result = ENTRIES[entry](wrap(INPUTS[entry]))
    assert_normalised(result)
    np.testing.assert_allclose(np.exp(result), PROBS, rtol=0, atol=1e-6)
    assert result[0, 1, 0] == -np.inf


@EDGE
def test_the_input_is_not_changed(entry: str):
    values = INPUTS[entry].copy()
    ENTRIES[entry](values)
    np.testing.assert_array_equal(values, INPUTS[entry])


@EDGE
def test_float64_stays_float64_under_x64(entry: str):
    with in_float64():
        result = np.asarray(ENTRIES[entry](INPUTS[entry]))
    assert result.dtype == np.float64
    np.testing.assert_allclose(np.exp(result), PROBS, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint8])
def test_one_hot_votes_of_integers_and_booleans_are_probabilities(dtype: type):
    votes = np.eye(3, dtype=dtype)[[[0, 1], [2, 2]]]
    result = bb.from_probs(votes)
    assert_normalised(result)
    np.testing.assert_array_equal(np.exp(result), votes)


def test_counts_of_votes_are_not_probabilities():
    with pytest.raises(ValueError, match=r"probs\[0, 0\].* sums to 5 instead of 1"):
        bb.from_probs(np.array([[[3, 2]]]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 0.0078125), (jnp.bfloat16, 0.0625)])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_softmax_rows_of_half_precision_are_renormalised(
    dtype: Any, tolerance: float, num_classes: int
):
    logits = np.random.default_rng(0).normal(size=(20, 5, num_classes))
    probs = np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)).astype(dtype)
    misses = np.abs(probs.astype(np.float64).sum(axis=-1) - 1)
    assert 0 < misses.max() < tolerance  # there is something to mend
    assert_normalised(bb.from_probs(probs))
    with np.errstate(divide="ignore"):
        assert_normalised(bb.check_log_probs(np.log(probs)))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float16, 8 * 2.0**-10), (np.float32, 1e-3), (np.float64, 1e-3)],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_tolerance_is_the_stated_one(dtype: type, tolerance: float, sign: int):
    row = np.array([0.25, 0.25, 0.5])

    def off_by(miss: float) -> np.ndarray:
        return (row + np.array([0, 0, sign * miss])).astype(dtype)[None, None]

    assert_normalised(bb.from_probs(off_by(0.8 * tolerance)))
    assert_normalised(bb.check_log_probs(np.log(off_by(0.8 * tolerance))))
    with pytest.raises(ValueError, match=r"probs\[0, 0\]: axis C \(classes\) sums to"):
        bb.from_probs(off_by(1.3 * tolerance))
    with pytest.raises(ValueError, match=r"log_probs\[0, 0\]: axis C \(classes\) sums to"):
        bb.check_log_probs(np.log(off_by(1.3 * tolerance)))


@EDGE
@pytest.mark.parametrize(
    ("shape", "num_axes"), [((), 0), ((6,), 1), ((2, 3), 2), ((2, 2, 3, 1), 4)]
)
def test_a_wrong_rank_names_the_axes_and_the_fix(entry: str, shape: tuple[int, ...], num_axes: int):
    message = (
        rf"^{entry}: shape {str(shape).replace('(', '.').replace(')', '.')} has {num_axes} axes, "
        r"expected 3: \[N, K, C\] = \[points, posterior samples, classes\]; .*\[:, None, :\]"
    )
    with pytest.raises(ValueError, match=message):
        ENTRIES[entry](np.ones(shape))


@EDGE
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((0, 2, 3), r"N \(points\)"),
        ((2, 0, 3), r"K \(posterior samples\)"),
        ((2, 2, 0), r"C \(classes\)"),
    ],
)
def test_an_empty_axis_is_named(entry: str, shape: tuple[int, ...], axis: str):
    with pytest.raises(ValueError, match=rf"^{entry}: axis {axis} of shape .* is empty"):
        ENTRIES[entry](np.ones(shape))


@EDGE
@pytest.mark.parametrize("dtype", [complex, object, str, "m8[s]", "M8[s]"])
def test_what_holds_no_real_numbers_is_refused(entry: str, dtype: Any):
    values = np.zeros((1, 1, 1), int).astype(dtype)
    with pytest.raises(ValueError, match=rf"^{entry}: dtype .* does not hold real numbers"):
        ENTRIES[entry](values)


@EDGE
@pytest.mark.parametrize("values", [[[1.0], [1.0, 2.0]], jax.random.key(0)], ids=["ragged", "key"])
def test_what_is_no_array_is_refused(entry: str, values: Any):
    with pytest.raises(ValueError, match=rf"^{entry}: .* is not an array; pass NumPy, JAX or"):
        ENTRIES[entry](values)


@EDGE
def test_a_tracer_is_sent_outside_jit(entry: str):
    with pytest.raises(ValueError, match=rf"^{entry}: .* on the host; call this outside jit"):
        jax.jit(ENTRIES[entry])(jnp.asarray(INPUTS[entry]))


@EDGE
@pytest.mark.parametrize(
    ("value", "problem"), [(np.nan, r"NaN; find the point"), (np.inf, r"\+inf; clip it")]
)
def test_nan_and_plus_inf_are_named_with_the_first_index(entry: str, value: float, problem: str):
    values = with_value(with_value(INPUTS[entry], (1, 1, 0), value), (1, 0, 2), value)
    with pytest.raises(ValueError, match=rf"^{entry}\[1, 0, 2\] \(value (nan|inf)\): {problem}"):
        ENTRIES[entry](values)


def test_a_negative_probability_points_to_logits():
    values = with_value(PROBS, (1, 0, 1), -0.125)
    message = r"^probs\[1, 0, 1\] \(value -0.125\): a probability below zero; .*from_logits"
    with pytest.raises(ValueError, match=message):
        bb.from_probs(values)


def test_logarithms_passed_as_probabilities_point_to_check_log_probs():
    message = r"^probs\[0, 1, 0\] \(value -inf\): .*check_log_probs"
    with pytest.raises(ValueError, match=message):
        bb.from_probs(LOG_PROBS)


def test_positive_logits_passed_as_probabilities_point_to_from_logits():
    with pytest.raises(ValueError, match=r"^probs\[0, 0\]: axis C .* sums to 6 .*from_logits"):
        bb.from_probs(np.array([[[1.0, 2.0, 3.0]]]))


def test_probabilities_passed_as_logarithms_point_to_from_probs():
    message = r"^log_probs\[0, 0, 0\] \(value 0.5\): a log-probability above zero; .*from_probs"
    with pytest.raises(ValueError, match=message):
        bb.check_log_probs(PROBS)


def test_small_probabilities_passed_as_logarithms_are_refused():
    # 2,000 classes of 0.0005: none is above the tolerance, but their "probabilities" sum to 2,001.
    with pytest.raises(ValueError, match=r"^log_probs\[0, 0\]: axis C .* sums to 2001 "):
        bb.check_log_probs(np.full((1, 1, 2000), 0.0005))


def test_a_class_axis_in_the_wrong_place_is_asked_about():
    with pytest.raises(ValueError, match=r"^probs\[0, 0\]: axis C .* is the class axis the last"):
        bb.from_probs(np.moveaxis(PROBS, -1, 0))


@pytest.mark.parametrize("entry", ["logits", "log_probs"])
def test_a_row_without_a_possible_class_is_refused(entry: str):
    values = INPUTS[entry].copy()
    values[1, 0] = -np.inf
    with pytest.raises(ValueError, match=rf"^{entry}\[1, 0\]: no class of axis C .* is possible"):
        ENTRIES[entry](values)


def test_a_row_of_zero_probabilities_is_refused():
    values = PROBS.copy()
    values[1, 1] = 0
    with pytest.raises(ValueError, match=r"^probs\[1, 1\]: no class of axis C .* is possible"):
        bb.from_probs(values)


@pytest.mark.parametrize("chunk_elements", [1, 12, 30])
def test_chunks_give_the_whole_and_the_index_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, chunk_elements: int
):
    probs = np.random.default_rng(0).dirichlet(np.ones(3), size=(7, 2))  # 6 elements a point
    whole = bb.from_probs(probs)
    monkeypatch.setattr(validation, "_CHUNK_ELEMENTS", chunk_elements)
    np.testing.assert_array_equal(bb.from_probs(probs), whole)
    with pytest.raises(ValueError, match=r"^probs\[6, 1, 2\]"):
        bb.from_probs(with_value(probs, (6, 1, 2), np.nan))
    with pytest.raises(ValueError, match=r"^probs\[6, 1\]: axis C"):
        bb.from_probs(with_value(probs, (6, 1, 2), 2.0))


@pytest.mark.parametrize("num_points", [1, 2, 3, 1000])
def test_jax_takes_the_checked_array_over_without_a_copy(
    monkeypatch: pytest.MonkeyPatch, num_points: int
):
    checked: list[np.ndarray] = []
    aligned = validation._aligned
    monkeypatch.setattr(
        validation, "_aligned", lambda *a: checked.append(aligned(*a)) or checked[0]
    )
    log_probs = bb.from_probs(np.repeat(PROBS[:1], num_points, axis=0))
    if jax.default_backend() == "cpu":
        assert log_probs.unsafe_buffer_pointer() == checked[0].ctypes.data
    assert_normalised(log_probs)


def test_a_mapped_file_is_left_as_it_is(tmp_path: Path):
    """What is given back of it to the system must be there again, and nobody's changes lost."""
    path = tmp_path / "probs.npy"
    np.save(path, PROBS)
    for mode in ("r", "c", "r+"):
        mapped = np.load(path, mmap_mode=mode)
        assert (validation._mapping(np.asarray(mapped).T) is not None) == (mode == "r")
        if mode != "r":
            mapped[1, 0] = mapped[1, 0, ::-1].copy()
        expected = mapped.copy()
        np.testing.assert_array_equal(bb.from_probs(mapped), bb.from_probs(expected))
        np.testing.assert_array_equal(mapped, expected)


@pytest.mark.parametrize("largest", [1e6, 1e12, 1e30, -1e30])
def test_logits_however_large_are_normalised(largest: float):
    result = bb.from_logits(np.full((1, 1, 4), largest))
    np.testing.assert_allclose(np.exp(result), np.full((1, 1, 4), 0.25), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_logits_too_far_apart_for_float32_are_a_certainty_without_a_warning():
    result = bb.from_logits(np.array([[[1e300, -1e300]], [[1e308, -1e308]]]))
    np.testing.assert_array_equal(np.exp(result), [[[1, 0]], [[1, 0]]])


_FLOATS = (np.float16, np.float32, np.float64, np.longdouble, ">f4")
_DTYPES = st.sampled_from((*_FLOATS, bool, np.int8, np.int64, np.uint8, complex, object, "U3"))
_ARRAYS = _DTYPES.flatmap(
    lambda dtype: hnp.arrays(
        np.dtype(dtype),
        st.one_of(st.just((2, 1, 2)), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)),
        elements=st.floats(0, 1, width=32) if dtype is object else None,
    )
)
_PROBS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    (2, 2, 2),
    elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, np.nan, np.inf, -np.inf, -0.5]),
)
# Nearly every drawing above is refused; these are normalised, or one value away from it.
_NEARLY_RIGHT = st.builds(
    lambda row, value: with_value(np.tile(row, (2, 2, 1)), (1, 0, 1), row[1] + value),
    st.sampled_from([[0.5, 0.5], [1.0, 0.0], [-np.log(2), -np.log(2)], [0.0, -np.inf]]),
    st.sampled_from([0.0, 1e-300, 1e-4, 0.01, -0.01, np.inf, -np.inf, np.nan]),
)


@EDGE
@hypothesis.settings(max_examples=100)
@hypothesis.given(values=st.one_of(_ARRAYS, _PROBS, _NEARLY_RIGHT))
@pytest.mark.filterwarnings("ignore:overflow")
def test_anything_ends_normalised_or_in_a_value_error_that_names_the_argument(
    entry: str, values: np.ndarray
):
    result = fuzz.result_or_refusal(f"from {entry}", lambda: ENTRIES[entry](values))
    if isinstance(result, ValueError):
        assert str(result).startswith(entry)
    else:
        assert_normalised(result)
        assert result.shape == values.shape


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "3", None])
def test_a_static_size_must_be_a_positive_integer(size: Any):
    with pytest.raises(ValueError, match=rf"^batch_size: {size!r} is not an integer of at least 1"):
        validation.assert_positive(batch_size=size)


def test_a_static_size_may_be_a_numpy_integer():
    sizes: dict[str, Any] = {"batch_size": np.int64(3), "num_configurations": 1}
    validation.assert_positive(**sizes)


@pytest.mark.parametrize("axes", ["NKC", "NCK", "KNC", "KCN", "CNK", "CKN"])
def test_every_order_of_axes_is_put_right_without_a_copy(axes: str):
    values = np.transpose(PROBS, ["NKC".index(letter) for letter in axes])
    ordered = validation.in_order(values, axes, "probs")
    assert np.shares_memory(ordered, PROBS)
    np.testing.assert_array_equal(ordered, PROBS)
    np.testing.assert_array_equal(
        validation.from_kind(values, "probs", axes), validation.from_probs(PROBS)
    )


@pytest.mark.parametrize("axes", ["", "NK", "NKK", "NKCC", "nkc", "NKD"])
def test_letters_that_are_no_order_of_the_axes_are_refused(axes: str):
    with pytest.raises(ValueError, match=rf"^axes: '{axes}' is no order .* as in KNC$"):
        validation.in_order(PROBS, axes, "probs")


def test_a_wrong_rank_is_told_in_the_order_of_the_axes():
    message = r"^probs: shape \(2, 3\) .*: \[K, N, C\] = \[posterior samples, points, classes\]"
    with pytest.raises(ValueError, match=message):
        validation.in_order(PROBS[0], "KNC", "probs")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"^kind: 'prob' is none of probs, logits, log-probs$"):
        validation.from_kind(PROBS, "prob")
