"""The README's Python runs as it stands."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbald_jax as bb

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def example(part: str) -> str:
    """The one example that contains `part`."""
    (found,) = (text for text in EXAMPLES if part in text)
    return found


def test_selecting_a_batch_from_an_array(capsys: pytest.CaptureFixture[str]):
    names: dict = {}
    exec(example("select_batchbald"), names)
    batch = names["batch"]
    assert len(set(batch.indices.tolist())) == 10
    assert np.all(np.diff(batch.scores) > 0)
    assert str(batch.indices) in capsys.readouterr().out


def test_people_who_label(make_log_probs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    # The default of 10,000 configurations is not for tests.
    monkeypatch.setattr("bbald_jax.session.catalogue", lambda: bb.catalogue(num_configurations=50))
    names: dict = {"bb": bb, "log_probs": make_log_probs(1000, 50, 3)}
    exec(example("bb.Session"), names)
    assert names["points"].size == 4
    assert sorted(names["labels"].tolist()) == [0, 0, 1, 2]
    assert (names["session"].pending.size, names["session"].skipped.size) == (5, 1)


def test_own_model_in_the_loop(capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    classes = jnp.asarray(np.arange(200) % 10, jnp.int32)
    x = jnp.asarray(rng.normal(size=(200, 4)), jnp.float32) + classes[:, None]
    validation = bb.pool.Labelled(x[:50], classes[:50], jnp.int32(50))
    data = bb.loop.Data(x, classes, validation, x[50:100], classes[50:100])
    exec(example("bb.loop"), {"jax": jax, "bb": bb, "data": data})
    assert len(capsys.readouterr().out.splitlines()) == 11


def test_own_acquisition_function():
    (example,) = (code for code in EXAMPLES if "bb.Acquisition(" in code)
    names: dict = {}
    exec(example, names)
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
