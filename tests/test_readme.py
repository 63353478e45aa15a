"""The README's Python runs as it stands, where the packages that it imports are installed."""

import ast
import importlib.util
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import bbald_jax as bb

README = Path(__file__).parents[1] / "README.md"
BB: dict[str, Any] = {"bb": bb}
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def example(words: str) -> str:
    """The one example that holds these words."""
    (text,) = (text for text in EXAMPLES if words in text)
    return text


def run(text: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run an example as it stands, with what it takes for granted in `names`."""
    exec(compile(text, str(README), "exec"), names)
    return names


def needs(*packages: str) -> None:
    """Skip where a package that is no dependency of ours is missing; what is left is to compile."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: the example was compiled, but not run")


def test_every_example_compiles():
    for text in EXAMPLES:
        ast.parse(text)


def test_selecting_a_batch_from_an_array(capsys: pytest.CaptureFixture[str]):
    names = run(example("rng(0).dirichlet"), {})
    batch = names["batch"]
    assert len(set(batch.indices.tolist())) == 10
    assert np.all(np.diff(batch.scores) > 0)
    assert str(batch.indices) in capsys.readouterr().out

    names = run(example("bb.select_batchbald("), names)
    np.testing.assert_array_equal(names["batch"].indices, batch.indices)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of 10,000 configurations is not for tests."""
    monkeypatch.setattr(bb, "select", partial(bb.select, num_configurations=100))


@pytest.mark.usefixtures("few")
def test_the_trees_of_a_forest():
    x, y = (array[:500] for array in load_digits(return_X_y=True))
    labelled = np.random.default_rng(0).permutation(len(x))[:60]
    names = run(example("RandomForestClassifier"), {"x": x, "y": y, "labelled": labelled} | BB)
    batch = names["batch"]
    assert not set(batch.indices) & set(labelled)
    assert batch.warnings == ()


@pytest.mark.usefixtures("few")
def test_dropout_in_torch_is_consistent():
    needs("torch")
    torch: Any = importlib.import_module("torch")
    nn = torch.nn
    layers = (nn.Linear(4, 64), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(64), nn.Linear(64, 3))
    x = torch.randn(100, 4)
    x[99] = x[0]
    names = run(example("bb.sample_torch(model, x"), {"model": nn.Sequential(*layers), "x": x} | BB)
    assert len(set(names["batch"].indices)) == 10
    assert names["logits"].std(axis=1).mean() > 0.01, "the samples are all alike"
    np.testing.assert_allclose(names["logits"][99], names["logits"][0], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("few")
def test_dropout_in_a_transformer_is_consistent():
    needs("torch", "transformers")
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=3,
    )  # fmt: skip

    def tokenizer(chunk: list[str], **options: Any) -> dict[str, Any]:
        del options
        length = max(int(text) for text in chunk)
        sizes = torch.tensor([[int(text)] for text in chunk])
        tokens = (torch.arange(length) + sizes) % 50
        return {"input_ids": tokens, "attention_mask": (torch.arange(length) < sizes).long()}

    model = transformers.BertForSequenceClassification(config)
    texts = [str(i % 50 + 1) for i in range(70)]
    names = run(
        example("tokenizer("), BB | {"model": model, "tokenizer": tokenizer, "texts": texts}
    )
    # Texts 0 and 50 are the same, and in the first batch, which is longer than the second; 14 and
    # 64 are in one each.
    logits = names["logits"]
    np.testing.assert_allclose(logits[0], logits[50], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits[14], logits[64], rtol=0, atol=1e-5)
    assert logits.std(axis=1).mean() > 0.001


def test_people_who_label(make_log_probs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # The default of 10,000 configurations is not for tests.
    few = bb.catalogue(num_configurations=50)
    monkeypatch.setattr("bbald_jax.acquisition.functions.catalogue", lambda **_: few)
    names: dict = {"bb": bb, "log_probs": make_log_probs(1000, 50, 3)}
    run(example("bb.Session"), names)
    assert names["points"].size == 4
    assert sorted(names["labels"].tolist()) == [0, 0, 1, 2]
    assert (names["session"].pending.size, names["session"].skipped.size) == (5, 1)


def test_own_model_in_the_loop(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    # The default of 10,000 configurations is not for tests.
    few = bb.catalogue(num_configurations=50)
    monkeypatch.setattr(bb, "catalogue", lambda: few)
    rng = np.random.default_rng(0)
    classes = jnp.asarray(np.arange(200) % 10, jnp.int32)
    x = jnp.asarray(rng.normal(size=(200, 4)), jnp.float32) + classes[:, None]
    validation = bb.pool.Labelled(x[:50], classes[:50], jnp.int32(50))
    data = bb.loop.Data(x, classes, validation, x[50:100], classes[50:100])
    run(example("bb.mc_dropout_learner"), {"jax": jax, "bb": bb, "data": data})
    assert len(capsys.readouterr().out.splitlines()) == 11


def test_own_acquisition_function():
    names = run(example("bb.Acquisition("), {})
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(0), (6, 4, 3)))
    log_probs = log_probs.at[2].set(log_probs[2, :1]).at[5].set(jnp.nan)
    batch = names["variance"].select(
        jax.random.key(0),
        bb.Inputs(log_probs),
        batch_size=4,
        available=jnp.arange(6) != 0,
        pending=jnp.asarray([3, -1]),
    )
    # Point 2 does not vary at all, and point 5 is broken.
    assert sorted(batch.indices[:2].tolist()) == [1, 4]
    assert batch.indices[2:].tolist() == [2, -1]


def test_the_catalogue_is_listed_as_it_is():
    section = README.read_text().partition("## The catalogue")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(.*?)`", section, re.MULTILINE) == list(bb.catalogue())
