"""The page of doors runs as it stands, where the packages that it imports are installed."""

import ast
import importlib.util
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bbald_jax as bb

PAGE = Path(__file__).parents[1] / "docs" / "doors.md"
#: The code of each section, by its heading.
SECTIONS = {
    section.partition("\n")[0]: "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    for section in re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE)[1:]
}
START, *DOORS = SECTIONS


def run(text: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run an example as it stands, with what stands before it in `names`."""
    exec(compile(text, str(PAGE), "exec"), names)
    return names


def needs(*packages: str) -> None:
    """Skip where a package that is no dependency of ours is missing; what is left is to compile."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: the example was compiled, but not run")


def test_every_example_compiles():
    for text in SECTIONS.values():
        ast.parse(text)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    # The default of 10,000 configurations is not for tests.
    monkeypatch.setattr(bb, "select", partial(bb.select, num_configurations=100))
    return run(SECTIONS[START], {})


def assert_batch(names: dict[str, Any]) -> None:
    batch = names["batch"]
    assert len(set(batch.indices)) == 5
    assert batch.warnings == ()
    assert batch.gains.min() > 0.01


@pytest.mark.parametrize("door", DOORS)
def test_eight_lines_are_enough(door: str):
    lines = [line for line in SECTIONS[door].splitlines() if line.strip()]
    assert 0 < len(lines) <= 8


@pytest.mark.parametrize("door", ["Flax linen", "Flax nnx", "Equinox"])
def test_a_model_to_a_batch(names: dict[str, Any], door: str):
    needs(*(["equinox"] if door == "Equinox" else []))
    run(SECTIONS[door], names)
    # A tenth of the steps is enough for a test.
    short = "bb.PAPER._replace(max_epochs=3)"
    run(SECTIONS["From a model to a batch"].replace("bb.PAPER", short), names)
    assert_batch(names)
    assert not {*names["batch"].indices} & {*names["labelled"]}


def test_pytorch(names: dict[str, Any]):
    needs("torch")
    importlib.import_module("torch").manual_seed(0)
    run(SECTIONS["PyTorch"], names)
    assert names["logits"].shape == (178, 100, 3)
    assert_batch(names)
    # As the text says: the batches of a loader are as good.
    torch, x = names["torch"], names["torch"].as_tensor(names["x"])
    data = torch.utils.data.TensorDataset(x, torch.as_tensor(names["y"]))
    loader = torch.utils.data.DataLoader(data, batch_size=50)
    again = bb.sample_torch(names["model"], (x for x, y in loader), 3)
    np.testing.assert_allclose(again, names["logits"][:, :3], rtol=0, atol=1e-5)


def test_hugging_face(names: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    needs("torch", "transformers")
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=3, initializer_range=0.5,
    )  # fmt: skip

    def tokenizer(chunk: list[str], **options: Any) -> dict[str, Any]:
        assert options == {"padding": True, "truncation": True, "return_tensors": "pt"}
        length = max(map(len, chunk))
        padded = [[ord(letter) % 50 for letter in text.ljust(length, "2")] for text in chunk]
        tokens = torch.tensor(padded)
        return {"input_ids": tokens, "attention_mask": (tokens > 0).long()}

    texts = [f"{'a text'[: i % 6]} {i % 50}{i % 7 * 'x'}" for i in range(70)]
    texts[0] += 20 * "y"
    texts[66] = texts[1]  # in the first batch, which is longer, and in the second
    model = transformers.BertForSequenceClassification(config)
    names |= {"model": model, "tokenizer": tokenizer, "texts": texts}
    logits = run(SECTIONS["Hugging Face"], names)["logits"]
    np.testing.assert_allclose(logits[66], logits[1], rtol=0, atol=1e-5)
    assert logits.std(axis=1).mean() > 0.01
    assert len(ast.literal_eval(capsys.readouterr().out)) == 5


def test_scikit_learn(names: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    run(SECTIONS["Scikit-learn"], names)
    assert_batch(names)
    assert str(names["batch"].indices) in capsys.readouterr().out
