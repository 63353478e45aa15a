"""Dropout in PyTorch: one network for all points, the model as it was, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bbald_jax.learning.torch_sampling import sample_torch

torch: Any = pytest.importorskip("torch")
nn = torch.nn
functional = nn.functional

NUM_POINTS, K, C = 21, 4, 3


def points(*shape: int) -> Any:
    """Points of which the last is a copy of the first."""
    x = torch.randn(NUM_POINTS, *shape, generator=torch.Generator().manual_seed(0))
    x[-1] = x[0]
    return x


def head(*layers: Any) -> Any:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(C))


class Recurrent(nn.Module):
    """A recurrent or transformer layer, and the mean over time."""

    def __init__(self, core: Any, time_first: bool = False) -> None:
        super().__init__()
        self.core, self.last, self.time_first = core, nn.LazyLinear(C), time_first

    def forward(self, x: Any) -> Any:
        h = self.core(x.transpose(0, 1) if self.time_first else x)
        h = h[0] if isinstance(h, tuple) else h
        return self.last(h.mean(dim=0 if self.time_first else 1))


class Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)
        self.options = options

    def forward(self, x: Any) -> Any:
        return self.attention(x, x, x, **self.options)[0]


class Lambda(nn.Module):
    """A function of the inputs and of whether the module is in training mode."""

    def __init__(self, function: Callable[[Any, bool], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x, self.training)


def encoder(batch_first: bool) -> Any:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=batch_first)
    return Recurrent(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), not batch_first)


def lstm(batch_first: bool) -> Any:
    return Recurrent(nn.LSTM(4, 8, 2, dropout=0.5, batch_first=batch_first), not batch_first)


def norm() -> Any:
    return nn.BatchNorm1d(8)


def native(x: Any, training: bool) -> Any:
    """Dropout as torch does it on a GPU."""
    return torch.native_dropout(x, 0.4, training)[0]


def merged(x: Any, training: bool) -> Any:
    """Time steps of one point side by side in the rows of a matrix."""
    return functional.dropout(x.reshape(-1, 4), 0.5, training).reshape(x.shape)


NINE = points(9)
LAYERS = ("Dropout", "Dropout1d", "AlphaDropout", "FeatureAlphaDropout")
MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    **{name: (lambda name=name: head(getattr(nn, name)(0.4)), points(16, 2)) for name in LAYERS},
    "Dropout2d": (lambda: head(nn.Conv2d(2, 16, 3), nn.Dropout2d(0.4)), points(2, 5, 5)),
    "Dropout3d": (lambda: head(nn.Dropout3d(0.4)), points(16, 2, 1, 2)),
    "in place": (lambda: head(nn.Linear(4, 16), nn.Dropout(0.4, inplace=True)), points(4)),
    "functional": (lambda: head(Lambda(lambda x, on: functional.dropout(x, 0.4, on))), points(16)),
    "one operation": (lambda: head(Lambda(native)), points(16)),
    "merged": (lambda: head(Lambda(merged)), points(6, 4)),
    "norm": (lambda: head(nn.Linear(4, 8), nn.Dropout(0.4), norm(), nn.RReLU()), points(4)),
    "attention": (lambda: Recurrent(Attention()), points(5, 4)),
    "fused attention": (lambda: Recurrent(Attention(need_weights=False)), points(5, 4)),
    "encoder": (lambda: encoder(True), points(5, 4)),
    "encoder, time first": (lambda: encoder(False), points(NUM_POINTS, 4)),
    "lstm": (lambda: lstm(True), points(5, 4)),
    "lstm, time first": (lambda: lstm(False), points(5, 4)),
    "scripted": (lambda: torch.jit.script(nn.Sequential(nn.Dropout(0.4), nn.Linear(9, C))), NINE),
}  # fmt: skip


def make(name: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    build, x = MODELS[name]
    model = build().eval()
    model(x)  # lazy layers
    return model, x


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", MODELS)
def test_a_sample_is_one_function_of_the_point(name: str):
    model, x = make(name)
    logits = sample_torch(model, x, K)
    assert logits.shape == (NUM_POINTS, K, C)
    assert logits.dtype == np.float32
    # To 1e-5: another number of rows may be another kernel.
    np.testing.assert_allclose(logits[-1], logits[0], rtol=0, atol=1e-5)
    chunked = sample_torch(model, x.split(8), K)
    np.testing.assert_allclose(chunked, logits, rtol=0, atol=1e-5)
    for k in range(K):
        assert np.abs(logits[:, k] - logits[:, k - 1]).max() > 1e-3
    assert np.abs(sample_torch(model, x, K, seed=1) - logits).max() > 1e-3


def test_samples_are_distributed_like_dropout():
    # Of a linear layer after dropout mean and variance are known.
    model = nn.Sequential(nn.Dropout(0.3), nn.Linear(10, 2))
    x = points(10)
    samples = sample_torch(model, x, 500).astype(np.float64)
    weight, bias = (p.detach().double() for p in model[1].parameters())
    terms = (x.double()[:, None] * weight).numpy()  # [N, C, 10]
    variance = np.square(terms).sum(axis=-1) * 0.3 / 0.7
    mean = terms.sum(axis=-1) + bias.numpy()
    assert np.all(np.abs(samples.mean(axis=1) - mean) < 5 * np.sqrt(variance / 500))
    np.testing.assert_allclose(samples.var(axis=1), variance, rtol=0.3)


def test_every_layer_and_sample_has_a_mask_of_its_own():
    model = nn.Sequential(nn.Dropout(0.3), nn.Dropout(0.3), nn.AlphaDropout(0.0))
    kept = sample_torch(model, torch.ones(2, 1000), 20)[0] > 0  # [K, C]
    # One mask for both layers would keep 0.7.
    assert abs(kept.mean() - 0.7**2) < 0.02
    both = (kept[:, None] & kept).mean(axis=-1)
    assert np.abs(both[~np.eye(20, dtype=bool)] - 0.7**4).max() < 0.07


@pytest.mark.parametrize("layer", ["native", "Dropout"])
def test_what_is_kept_is_scaled_up(layer: str):
    model = Lambda(native) if layer == "native" else nn.Dropout(0.4)
    kept = sample_torch(model, 3 * torch.ones(2, 50), K)
    np.testing.assert_allclose(np.unique(kept), [0, 3 / 0.6], rtol=1e-6)


class Texts(nn.Module):
    """A classifier of tokens like those of Hugging Face, with dropout at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.drop = nn.Embedding(50, 8, padding_idx=0), nn.Dropout(0.3)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.last = nn.Linear(8, C)

    def forward(self, input_ids: Any, attention_mask: Any, return_dict: bool = True) -> Any:
        assert return_dict
        x = self.drop(self.embedding(input_ids))
        x = self.attention(x, x, x, key_padding_mask=attention_mask == 0)[0]
        summed = (x * attention_mask[..., None]).sum(dim=1)

        class Output:
            logits = self.last(summed)

        return Output


def tokens(rows: Any, length: int, left: bool = False) -> dict[str, Any]:
    """Text number n, of n % 5 + 1 words, padded to a length."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    for i, n in enumerate(rows):
        size = n % 5 + 1
        place = slice(length - size, length) if left else slice(0, size)
        ids[i, place] = (torch.arange(size) * 7 + n) % 49 + 1
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "return_dict": True}


def test_texts_in_batches_of_several_lengths():
    torch.manual_seed(0)
    model = Texts()
    rows = list(range(20))
    logits = sample_torch(model, tokens(rows, 9), K)
    pieces = (tokens(rows[i : i + 5], length) for i, length in ((0, 5), (5, 8), (10, 6), (15, 9)))
    np.testing.assert_allclose(sample_torch(model, pieces, K), logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        sample_torch(model, tokens(rows, 9, left=True), K).shape, logits.shape
    )
    left = [tokens(rows[:5], 5), tokens(rows[5:], 6, left=True)]
    with pytest.raises(ValueError, match=r"^inputs: batch 1: texts are padded on the left.*right"):
        sample_torch(model, left, K)


class Failing(nn.Module):
    """It fails in its n-th pass."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.passes = passes

    def forward(self, x: Any) -> Any:
        self.passes -= 1
        if not self.passes:
            raise RuntimeError("failed")
        return x


@pytest.mark.parametrize("passes", [1, 4, 1000])
def test_the_model_and_the_random_state_come_back(passes: int):
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.Dropout(0.5), norm(), Failing(passes), nn.Linear(8, C))
    model = nn.Sequential(*layers).train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    state, random = model.state_dict(), torch.get_rng_state()
    before = {name: value.clone() for name, value in state.items()}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(points(4)), batch_size=8)
    if passes < 1000:
        with pytest.raises(RuntimeError, match="failed"):
            sample_torch(model, loader, K)
    else:
        assert sample_torch(model, loader, K).shape == (NUM_POINTS, K, C)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in model.modules())


class Statistics(nn.Module):
    """Somebody's own batch normalisation: the running mean is not torch's to know."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.in_place = in_place

    def forward(self, x: Any) -> Any:
        if self.training:
            mean = self.mean if self.in_place else self.mean.clone()
            self.mean = mean.lerp_(x.mean(dim=0), 1e-4)
        return x


def noise(x: Any, training: bool) -> Any:
    return x + torch.randn_like(x) if training else x


def hidden_noise(x: Any, training: bool) -> Any:
    return x + float(np.random.default_rng().normal()) if training else x


def centred(x: Any, training: bool) -> Any:
    return x - x.mean(dim=0) if training else x


def time_major(x: Any, training: bool) -> Any:
    swapped = x.reshape(-1, 4, 2).transpose(0, 1)
    dropped = functional.dropout(swapped.reshape(-1, 2), 0.5, training)
    return dropped.reshape(swapped.shape).transpose(0, 1)


def between_points(x: Any, training: bool) -> Any:
    return functional.dropout(x @ x.T, 0.5, training) @ x


def skipping(x: Any, training: bool) -> Any:
    return functional.dropout(x, 0.5, training and len(x) > 5)


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "no dropout": ((), "samples of Sequential are all alike.*rate above 0"),
    "rate 0": ((nn.Dropout(0.0),), "are all alike"),
    "noise": ((Lambda(noise),), r"'1' \(Lambda\) draws random numbers by aten.randn_like"),
    "noise from elsewhere": ((Lambda(hidden_noise),), "depend on the points beside it"),
    "statistics of the batch": ((Lambda(centred),), "depend on the points beside it"),
    "own statistics": (
        (Statistics(True),),
        "buffer '1.mean' of Sequential changes in training mode",
    ),
    "new statistics": ((Statistics(False),), "buffer '1.mean' of Sequential changes in training"),
    "merged the other way": ((Lambda(time_major),), "depend on the points beside it"),
    "mixed points": ((Lambda(between_points),), "so that they cannot share it"),
    "skipped": ((Lambda(skipping),), "draws 2 dropout masks for 21 points and 1 for 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_function_of_the_point_is_refused(name: str):
    torch.manual_seed(0)
    layers, words = REFUSED[name]
    drop = () if name in ("no dropout", "rate 0") else (nn.Dropout(0.1),)
    model = nn.Sequential(nn.Linear(4, 8), *layers, *drop, nn.Flatten(), nn.Linear(8, C))
    with pytest.raises(ValueError, match=rf"^model: .*{words}"):
        sample_torch(model, points(4), K)
    for buffer in model.buffers():
        assert not buffer.any()


X = points(4)
MLP = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, C))
WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "no module": ((lambda x: x, X), "^model: function is no torch.nn.Module"),
    "one sample": ((MLP, X, 1), "^num_samples: 1 is not an integer of at least 2"),
    "seed": ((MLP, X, K, -1), "^seed: -1"),
    "numpy": ((MLP, X.numpy()), "^inputs: ndarray is no tensor.*torch.as_tensor"),
    "texts": ((MLP, "text"), "^inputs: str is no tensor"),
    "pairs": ((MLP, [(X, X)]), r"^inputs: batch 0 is a tuple of 2.*for x, y in loader"),
    "lists": ((MLP, {"input_ids": [[1, 2]]}), "^inputs: all: first axes of length.*'pt'"),
    "lengths": ((MLP, {"a": X, "b": X[:2]}), r"^inputs: all: first axes of length \[2, 21\]"),
    "no batch": ((MLP, []), "^inputs: no batch came"),
    "points": ((MLP, list(X)), r"^model: an output of shape \(3,\) for 4 points"),
    "tuple": ((Lambda(lambda x, on: (x, x)), X), "^model: an output of type tuple"),
    "one logit": ((nn.Linear(4, 1), X), r"^model: an output of shape \(21, 1\).*torch.stack"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(name: str):
    arguments, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        sample_torch(*arguments)


def test_another_path_in_a_later_batch_is_refused():
    def is_on(x: Any) -> bool:
        return bool(x[:, 0].max() < 9)

    drop = Lambda(lambda x, on: functional.dropout(x, 0.5, on and is_on(x)))
    model = nn.Sequential(drop, MLP)
    batches = [X[:8], X[8:16], X[16:] + 9]
    with pytest.raises(ValueError, match="draws 1 dropout masks for this batch and drew 2 for the"):
        sample_torch(model, batches, K)


def test_an_impossible_class_is_no_difference():
    model = nn.Sequential(MLP, Lambda(lambda x, on: x.index_fill(1, torch.tensor([1]), -torch.inf)))
    logits = sample_torch(model, X, K)
    assert np.isneginf(logits[:, :, 1]).all()
    with pytest.raises(ValueError, match="are all alike"):
        sample_torch(nn.Sequential(nn.Linear(4, 3), model[1]), X, K)


def test_half_precision_comes_back_as_float32():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, C)).bfloat16()
    assert sample_torch(model, X.bfloat16(), K).dtype == np.float32
    assert sample_torch(model.double(), X.double(), K).dtype == np.float64
