"""`bbald run` on a file of the user's own: run, continued wherever it lies, refused if changed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib.axes import Axes
from PIL import Image
from runs import lines_of, make_line

from bbald_jax.cli.main import main
from bbald_jax.experiment import datasets, results, trials
from bbald_jax.experiment.config import Config
from bbald_jax.experiment.dataset import Dataset
from bbald_jax.experiment.results import Line
from bbald_jax.learning.recipes import RECIPES

ARGUMENTS = ("run", "--acquisition=random", "--acquisition-size=2", "--num-samples=3")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*ARGUMENTS, *map(str, arguments)])


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 2, and one line on standard error."""
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.strip().splitlines()
    for word in words:
        assert word in line


def save(path: Path, seed: int = 0) -> Path:
    """Vectors of three classes that are far apart."""
    rng = np.random.default_rng(seed)
    y = np.arange(48) % 3
    x = rng.normal(size=(48, 4)) + 4 * np.eye(3, 4)[y]
    names = np.array(["ant", "bee", "cow"])[y]
    np.savez(path, x_train=x[:36], y_train=names[:36], x_test=x[36:], y_test=names[36:])
    return path


@pytest.fixture(scope="module", autouse=True)
def short_recipe() -> Iterator[None]:
    short = RECIPES["paper"]._replace(steps_per_epoch=20, max_epochs=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "paper", short)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where a run of two rounds of acquisition was started, and what it said."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        save(Path("my points.npz"))
        result = invoke("--dataset=my points.npz", "--num-rounds=2", "--pool-size=24")
    assert result.exit_code == 0, (result.output, result.exception)
    return home, result.output


@pytest.fixture
def home(finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to work in."""
    home = shutil.copytree(finished[0], tmp_path / "home")
    monkeypatch.chdir(home)
    return home


FOLDER = Path("results", "my points-random-seed0")
AGAIN = ("--num-rounds=2", "--pool-size=24", f"--output-dir={FOLDER}")


def test_a_run_on_vectors_is_like_any_other(finished: tuple[Path, str]):
    home, output = finished
    folder = home / FOLDER  # named after the file
    names = {"config.json", "rounds.jsonl", "rounds.csv", "learning_curve.png", "lock"}
    assert {path.name for path in folder.iterdir() if path.is_file()} == names
    assert "learning_curve.png; no acquired.png, which is for images" in output
    config = results.read_config(folder)
    assert config["dataset"] == "my points.npz"
    assert config["dataset_sha256"] == datasets.dataset_sha256(str(home / "my points.npz"))
    lines = lines_of(folder)
    assert [line["num_labelled"] for line in lines] == [6, 8, 10]
    assert lines[-1]["accuracy"] > 0.9
    y = datasets.load_dataset(str(home / "my points.npz")).y_train
    for line in lines:
        assert y[line["indices"]].tolist() == line["classes"]


def test_the_same_points_may_lie_somewhere_else(home: Path):
    Path("my points.npz").rename("elsewhere.npz")
    result = invoke("--dataset=elsewhere.npz", *AGAIN)
    assert result.exit_code == 0, result.output
    assert "is finished; nothing was run." in result.output


def test_a_run_does_not_continue_on_another_content(home: Path):
    save(Path("my points.npz"), seed=1)
    before = {path: path.read_bytes() for path in FOLDER.iterdir() if path.is_file()}
    words = ("another content of my points.npz, which has been changed since (sha256 ", "put back")
    assert_refused(invoke("--dataset=my points.npz", *AGAIN), *words)
    assert {path: path.read_bytes() for path in FOLDER.iterdir() if path.is_file()} == before


def test_a_run_does_not_continue_on_another_data_set(home: Path):
    words = "dataset is 'my points.npz' there and 'digits' now"
    result = invoke("--dataset=digits", *AGAIN)
    assert_refused(result, words)
    save(Path("other.npz"), seed=1)
    assert_refused(invoke("--dataset=other.npz", *AGAIN), "there and 'other.npz' now")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dataset=nowhere.npz",), "'nowhere.npz' is no data set (digits, mnist, repeated-mnist"),
        (("--dataset=nowhere.npz",), "and no file or folder of that name is there"),
        (("--dataset=my points.npz", "--pool-size=31"), "my points.npz has 30 points for the pool"),
        (("--dataset=my points.npz", "--recipe=augmented"), "vectors of 4 numbers; take --recipe"),
        (("--dataset=my points.npz", "--initial-per-class=13"), "points has only 9 of class ant"),
        (("--dataset=texts.npz",), "texts.npz: its points are texts, and learners take number"),
        (("--dataset=empty",), "empty: holds no images in sub-folders"),
        (("--dataset=notes.txt",), "notes.txt: suffix '.txt' is none of .npz, .safetensors"),
    ],
)
def test_what_cannot_be_served_is_one_line(home: Path, arguments: tuple[str, ...], words: str):
    texts, y = np.array(["a b", "c d"] * 3), [0, 1] * 3
    np.savez("texts.npz", x_train=texts, y_train=y, x_test=texts, y_test=y)
    Path("notes.txt").touch()
    Path("empty").mkdir()
    result = invoke(*arguments, "--output-dir=new")
    assert result.exit_code == 2, (result.output, result.exception)
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_images_in_a_folder_are_run_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen, titles = [], []

    def run(
        config: Config, folder: Path, dataset: Dataset, features_folder: Path, devices: list
    ) -> Iterator[Line]:
        seen.append(dataset)
        assert len(devices) == 1
        for line in (make_line(0, is_last=False), make_line(1, is_last=True)):
            results.append_round(folder, line)
            yield line

    monkeypatch.setattr(trials, "run", run)
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **options: titles.append(text))
    for name in ("dark", "light"):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (4, 3), "navy" if name == "dark" else "pink").save(
                tmp_path / "shades" / name / f"{i}.png"
            )
    monkeypatch.chdir(tmp_path)
    for end in ("", "/"):
        result = invoke(f"--dataset=shades{end}", "--num-rounds=1")
        assert result.exit_code == 0, (result.output, result.exception)
        folder = Path("results", "shades-random-seed0")
        assert "learning_curve.png, acquired.png" in result.output
        assert (folder / "acquired.png").read_bytes().startswith(b"\x89PNG")
    (dataset,) = seen
    assert dataset.x_train.shape == (2, 3, 4, 3)
    assert titles == ["dark"]
