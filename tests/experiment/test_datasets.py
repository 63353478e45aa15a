"""Data sets: a real HTTP server on 127.0.0.1 plays the mirrors, with tiny IDX files."""

import gzip
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest

from bbald_jax.experiment import datasets
from bbald_jax.experiment.datasets import Dataset
from bbald_jax.experiment.idx import IDX_FILES, DatasetUnavailableError, Source

RNG = np.random.default_rng(0)
TRAIN_IMAGES, TEST_IMAGES = (RNG.integers(0, 256, (n, 4, 5), dtype=np.uint8) for n in (7, 3))
TRAIN_LABELS, TEST_LABELS = (RNG.integers(0, 10, n, dtype=np.uint8) for n in (7, 3))


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


FILES = {
    name: gzip.compress(idx(array), mtime=0)
    for name, array in zip(
        IDX_FILES, (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS), strict=True
    )
}
CONTENTS = tuple(hashlib.sha256(gzip.decompress(content)).hexdigest() for content in FILES.values())
CHECKSUMS = tuple(f"sha256:{hashlib.sha256(content).hexdigest()}" for content in FILES.values())


class Handler(BaseHTTPRequestHandler):
    """One server, many mirrors: the first folder of the URL says how the mirror behaves."""

    def do_GET(self):
        assert isinstance(self.server, Server)
        self.server.requests.append(self.path)
        _, mirror, name = self.path.split("/")
        content = FILES[name]
        if mirror == "missing":
            self.send_error(404)
            return
        if mirror == "error":
            self.send_error(503)
            return
        if mirror == "wrong":
            content = content[:-1] + b"?"
        if mirror == "page":  # what a captive portal answers, with status 200
            content = b"<html>Please log in</html>"
        if mirror == "together":  # no answer before both clients are in the middle of a download
            self.server.barrier.wait(timeout=30)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if mirror in ("truncated", "stalled"):
            content = content[: len(content) // 2]
        self.wfile.write(content)
        if mirror == "stalled":
            self.wfile.flush()
            self.server.stalled.set()
            self.server.release.wait(timeout=60)

    def log_message(self, format: str, *args):
        pass


class Server(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.barrier = threading.Barrier(2)
        self.stalled, self.release = threading.Event(), threading.Event()

    def mirror(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def refused() -> Iterator[str]:
    """A mirror whose port is taken but answers nobody."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no $BBALD_DATA_DIR, and no proxy between us and the server."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("BBALD_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "bbald_jax" / "tiny"


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$BBALD_DATA_DIR/tiny with the four files."""
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    monkeypatch.setenv("BBALD_DATA_DIR", str(tmp_path / "data"))
    return folder


def tiny(*mirrors: str) -> Source:
    return Source("tiny", mirrors, CHECKSUMS, CONTENTS, mean=0.25, std=0.5)


def assert_is_tiny(dataset: Dataset):
    assert dataset.name == "tiny"
    assert (dataset.num_classes, dataset.num_repeats) == (10, 1)
    for x, images in ((dataset.x_train, TRAIN_IMAGES), (dataset.x_test, TEST_IMAGES)):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, (images[..., None] / 255 - 0.25) / 0.5, atol=1e-6)
    for y, labels in ((dataset.y_train, TRAIN_LABELS), (dataset.y_test, TEST_LABELS)):
        assert y.dtype == np.int32
        np.testing.assert_array_equal(y, labels)


# --- mirrors and the cache ---


def test_downloads_from_the_first_mirror_and_then_uses_the_cache(server: Server, cache: Path):
    source = tiny(server.mirror("good"), server.mirror("missing"))
    assert_is_tiny(datasets.load_idx(source))
    assert server.requests == [f"/good/{name}" for name in IDX_FILES]
    assert {path.name for path in cache.iterdir()} == set(IDX_FILES)

    assert_is_tiny(datasets.load_idx(source))
    assert len(server.requests) == 4


@pytest.mark.parametrize("behaviour", ["missing", "error", "wrong", "page", "truncated"])
def test_goes_on_to_the_next_mirror(server: Server, cache: Path, behaviour: str):
    assert_is_tiny(datasets.load_idx(tiny(server.mirror(behaviour), server.mirror("good"))))
    assert server.requests == [f"/{m}/{name}" for name in IDX_FILES for m in (behaviour, "good")]
    assert {path.name for path in cache.iterdir()} == set(IDX_FILES)  # no leftovers


def test_goes_on_when_the_connection_is_refused(server: Server, refused: str):
    assert_is_tiny(datasets.load_idx(tiny(refused, server.mirror("good"))))


def test_all_mirrors_fail(server: Server, refused: str, cache: Path):
    behaviours = ("missing", "error", "wrong", "truncated")
    mirrors = (refused, *map(server.mirror, behaviours))
    with pytest.raises(DatasetUnavailableError) as caught:
        datasets.load_idx(tiny(*mirrors))
    message = str(caught.value)
    assert isinstance(caught.value, OSError)
    assert "\n" not in message
    for mirror in mirrors:
        assert mirror in message
    for reason in ("Connection refused", "404 Client Error", "503 Server Error", "SHA256 hash"):
        assert reason in message
    assert "IncompleteRead" in message
    assert "$BBALD_DATA_DIR/tiny/" in message
    assert all(name in message for name in IDX_FILES)
    assert message.startswith(f"cannot get {IDX_FILES[0]} of tiny")
    assert list(cache.iterdir()) == []


def test_reasons_are_not_taken_from_the_callers_exception(server: Server):
    try:
        raise KeyError("unrelated")
    except KeyError:
        with pytest.raises(DatasetUnavailableError) as caught:
            datasets.load_idx(tiny(server.mirror("missing")))
    assert "404" in str(caught.value)
    assert "unrelated" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"garbage", FILES[IDX_FILES[0]][:-5]])
def test_a_corrupt_file_in_the_cache_is_fetched_again(server: Server, cache: Path, damage: bytes):
    source = tiny(server.mirror("good"))
    datasets.load_idx(source)
    (cache / IDX_FILES[0]).write_bytes(damage)
    assert_is_tiny(datasets.load_idx(source))
    assert server.requests[4:] == [f"/good/{IDX_FILES[0]}"]


def test_two_clients_at_once(server: Server, cache: Path):
    source = tiny(server.mirror("together"))
    with ThreadPoolExecutor(2) as pool:
        for dataset in pool.map(datasets.load_idx, [source, source]):
            assert_is_tiny(dataset)
    assert len(server.requests) == 8  # both did download every file
    assert {path.name for path in cache.iterdir()} == set(IDX_FILES)


def test_a_killed_download_does_no_harm(server: Server, cache: Path):
    script = (
        "import sys, pathlib, pooch\n"
        "from bbald_jax import datasets\n"
        "root, mirror, *checksums = sys.argv[1:]\n"
        "pooch.os_cache = lambda project: pathlib.Path(root)\n"
        "source = datasets.Source('tiny', (mirror,), tuple(checksums), ('',) * 4, 0.0, 1.0)\n"
        "datasets.load_idx(source)\n"
    )
    arguments = [str(cache.parent), server.mirror("stalled"), *CHECKSUMS]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stderr=subprocess.DEVNULL
    ) as process:
        assert server.stalled.wait(timeout=120)
        process.kill()
    left = {path.name for path in cache.iterdir()}
    assert len(left) == 1 and not left & set(IDX_FILES)  # the temporary file only
    assert_is_tiny(datasets.load_idx(tiny(server.mirror("good"))))


def test_an_unusable_cache_is_reported(server: Server, cache: Path):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(DatasetUnavailableError, match=r"BBALD_DATA_DIR"):
        datasets.load_idx(tiny(server.mirror("good")))


def test_needs_pooch_only_to_download(local: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert_is_tiny(datasets.load_idx(tiny()))
    (local / IDX_FILES[2]).unlink()
    with pytest.raises(ModuleNotFoundError, match=r"needs pooch.*bbald_jax\[experiments\]"):
        datasets.load_idx(tiny())


def test_the_file_itself_imports_nothing_heavy():
    script = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[1])\n"
        "heavy = {'jax', 'flax', 'sklearn', 'pooch', 'requests'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(datasets.__file__)], check=True)


# --- $BBALD_DATA_DIR ---


def test_data_dir_comes_before_cache_and_mirrors(server: Server, local: Path, cache: Path):
    assert_is_tiny(datasets.load_idx(tiny(server.mirror("good"))))
    assert server.requests == []
    assert not cache.exists()


def test_a_file_missing_in_data_dir_is_downloaded(server: Server, local: Path):
    (local / IDX_FILES[1]).unlink()
    assert_is_tiny(datasets.load_idx(tiny(server.mirror("good"))))
    assert server.requests == [f"/good/{IDX_FILES[1]}"]
    assert not (local / IDX_FILES[1]).exists()  # the user's folder is not written to


def test_empty_data_dir_variable_means_none(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BBALD_DATA_DIR", "")
    assert_is_tiny(datasets.load_idx(tiny(server.mirror("good"))))


def test_data_dir_may_begin_with_a_tilde(local: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(local.parent.parent))
    monkeypatch.setenv("BBALD_DATA_DIR", "~/data")
    assert_is_tiny(datasets.load_idx(tiny()))


def test_wrong_checksum_in_data_dir(server: Server, local: Path):
    path = local / IDX_FILES[2]
    path.write_bytes(gzip.compress(idx(TEST_IMAGES[::-1]), mtime=0))
    with pytest.raises(ValueError, match=r"not the original file.*expected.*replace it") as caught:
        datasets.load_idx(tiny(server.mirror("good")))
    assert str(path) in str(caught.value)
    assert server.requests == []


def test_md5_checksums(server: Server):
    checksums = tuple(f"md5:{hashlib.md5(content).hexdigest()}" for content in FILES.values())
    source = tiny(server.mirror("wrong"), server.mirror("good"))
    assert_is_tiny(datasets.load_idx(source._replace(checksums=checksums)))


def test_files_that_were_compressed_anew_are_read(server: Server, local: Path):
    for name, content in FILES.items():
        (local / name).write_bytes(gzip.compress(gzip.decompress(content), 1, mtime=1))
    assert_is_tiny(datasets.load_idx(tiny(server.mirror("good"))))
    assert server.requests == []


def test_files_that_are_not_compressed_are_read(server: Server, local: Path):
    for name in IDX_FILES[:3]:
        (local / name.removesuffix(".gz")).write_bytes(gzip.decompress(FILES[name]))
        (local / name).unlink()
    assert_is_tiny(datasets.load_idx(tiny(server.mirror("good"))))
    assert server.requests == []
    path = local / IDX_FILES[0].removesuffix(".gz")
    path.write_bytes(path.read_bytes() + b"?")
    with pytest.raises(ValueError, match="not the original file"):
        datasets.load_idx(tiny(server.mirror("good")))


def test_a_mirror_with_another_content_is_refused(server: Server):
    # Nobody publishes checksums of the contents: what the checksum lets in is looked at again.
    source = tiny(server.mirror("good"))._replace(contents=CONTENTS[::-1])
    with pytest.raises(ValueError, match="not the original file"):
        datasets.load_idx(source)


def test_images_and_labels_of_different_length(local: Path):
    labels = gzip.compress(idx(TRAIN_LABELS[:-1]), mtime=0)
    (local / IDX_FILES[1]).write_bytes(labels)
    contents = list(CONTENTS)
    contents[1] = hashlib.sha256(idx(TRAIN_LABELS[:-1])).hexdigest()
    with pytest.raises(ValueError, match=r"7 images but .*train-labels.* holds 6 labels"):
        datasets.load_idx(tiny()._replace(contents=tuple(contents)))


@pytest.mark.parametrize(
    "source", [datasets.MNIST, datasets.FASHION_MNIST], ids=lambda source: source.name
)
def test_sources_are_well_formed(source: Source):
    assert len(source.checksums) == len(set(source.checksums)) == len(IDX_FILES)
    digits = {"md5": 32, "sha256": 64}
    for algorithm, digest in (checksum.split(":") for checksum in source.checksums):
        assert len(digest) == digits[algorithm] and int(digest, 16)
    assert len(source.contents) == len(set(source.contents)) == len(IDX_FILES)
    assert all(len(digest) == 64 and int(digest, 16) for digest in source.contents)
    assert len(source.mirrors) >= 2
    assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in source.mirrors)


# --- IDX ---


def test_read_idx(tmp_path: Path):
    path = tmp_path / "a.gz"
    for array in (TRAIN_IMAGES, TRAIN_LABELS, TRAIN_IMAGES[:0]):
        path.write_bytes(gzip.compress(idx(array), mtime=0))
        read = datasets.read_idx(path, ndim=array.ndim)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)


GOOD = idx(TRAIN_IMAGES)
HUGE = bytes((0, 0, 8, 3)) + b"\xff" * 12 + b"abc"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file.*begins with nothing"),
        (b"not gzip at all", "not a complete gzip file"),
        (gzip.compress(GOOD, mtime=0)[:-9], "not a complete gzip file"),
        (gzip.compress(GOOD, mtime=0)[:5], "not a complete gzip file"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "not a complete gzip file"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 40, "not a complete gzip file"),
        (gzip.compress(b"", mtime=0), "not an IDX file.*begins with nothing"),
        (gzip.compress(b"<html>hello</html>", mtime=0), "not an IDX file.*begins with 3c68746d"),
        (
            gzip.compress(idx(TRAIN_LABELS), mtime=0),
            "not an IDX file of 3-dim.*begins with 00000801",
        ),
        (
            gzip.compress(bytes((0, 0, 13, 3)) + GOOD[4:], mtime=0),
            "unsigned bytes.*begins with 00000d03",
        ),
        (gzip.compress(GOOD[:12], mtime=0), "not an IDX file.*holds 12 bytes"),
        (gzip.compress(GOOD[:-1], mtime=0), r"shape \(7, 4, 5\).*140 bytes, but holds 139"),
        (gzip.compress(GOOD + b"\0", mtime=0), r"shape \(7, 4, 5\).*140 bytes, but holds 141"),
        (gzip.compress(HUGE, mtime=0), f"{(2**32 - 1) ** 3} bytes, but holds 3"),
    ],
)
def test_read_idx_errors_name_the_file_and_the_fix(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.read_idx(path, ndim=3)
    assert str(path) in str(caught.value)
    assert "replace it with the original file" in str(caught.value)


# --- digits ---


def test_digits():
    digits = datasets.load_digits()
    assert digits.x_train.shape == (1200, 8, 8, 1) and digits.y_train.shape == (1200,)
    assert digits.x_test.shape == (597, 8, 8, 1) and digits.y_test.shape == (597,)
    assert digits.x_train.dtype == digits.x_test.dtype == np.float32
    assert digits.y_train.dtype == digits.y_test.dtype == np.int32
    assert digits.x_train.min() == 0 and digits.x_train.max() == 1
    assert (digits.name, digits.num_classes, digits.num_repeats) == ("digits", 10, 1)
    for y in (digits.y_train, digits.y_test):  # about balanced: each class within 6 % to 14 %
        shares = np.bincount(y, minlength=10) / len(y)
        assert len(shares) == 10 and shares.min() > 0.06 and shares.max() < 0.14


def test_digits_split_is_fixed_and_disjoint():
    first, second = datasets.load_digits(), datasets.load_dataset("digits")
    np.testing.assert_array_equal(first.x_train, second.x_train)
    np.testing.assert_array_equal(first.y_test, second.y_test)
    # The 1,797 images are all different, so a shared point would show.
    images = np.concatenate([first.x_train, first.x_test]).reshape(1797, -1)
    assert len(np.unique(images, axis=0)) == 1797


def test_digits_needs_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs sklearn.*bbald_jax\[experiments\]"):
        datasets.load_digits()


# --- repeat ---


@pytest.fixture
def base() -> Dataset:
    x = RNG.standard_normal((40, 6, 6, 1), dtype=np.float32)
    y = RNG.integers(0, 10, 40).astype(np.int32)
    return Dataset("base", x, y, x[:5] + 1, y[:5], num_classes=10)


def test_repeat_layout(base: Dataset):
    repeated = datasets.repeat(base, num_repeats=3, noise=0.1, seed=0)
    assert repeated.name == "repeated-base"
    assert (repeated.num_repeats, repeated.num_classes) == (3, 10)
    assert repeated.x_train.shape == (120, 6, 6, 1) and repeated.x_train.dtype == np.float32
    assert repeated.y_train.dtype == np.int32
    originals = np.arange(120) % (120 // repeated.num_repeats)
    np.testing.assert_array_equal(repeated.y_train, base.y_train[originals])
    distance = np.abs(repeated.x_train - base.x_train[originals]).max()
    assert 0 < distance < 0.1 * 6
    np.testing.assert_array_equal(repeated.x_test, base.x_test)
    np.testing.assert_array_equal(repeated.y_test, base.y_test)


def test_repeat_noise(base: Dataset):
    before = base.x_train.copy()
    repeated = datasets.repeat(base, num_repeats=4, noise=0.1, seed=0)
    np.testing.assert_array_equal(base.x_train, before)
    noise = (repeated.x_train.reshape(4, *base.x_train.shape) - base.x_train).reshape(4, -1)
    # 1,440 draws a copy: the standard error is 0.0026 for the mean, 0.0019 for the deviation.
    assert np.all(np.abs(noise.mean(axis=1)) < 0.015)
    assert np.all(np.abs(noise.std(axis=1) - 0.1) < 0.01)
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 0.15  # every copy has its own


def test_repeat_is_deterministic_in_the_seed(base: Dataset):
    first, same, other = (
        datasets.repeat(base, num_repeats=2, noise=0.1, seed=seed).x_train for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, same)
    assert np.all(np.abs(first - other).max(axis=(1, 2, 3)) > 0)


def test_repeat_without_noise_is_exact(base: Dataset):
    repeated = datasets.repeat(base, num_repeats=2, noise=0.0, seed=0)
    np.testing.assert_array_equal(repeated.x_train, np.tile(base.x_train, (2, 1, 1, 1)))


def test_repeat_of_a_repeat_still_knows_the_originals(base: Dataset):
    twice = base
    for num_repeats in (2, 3):
        twice = datasets.repeat(twice, num_repeats=num_repeats, noise=0.0, seed=0)
    originals = np.arange(240) % (240 // twice.num_repeats)
    np.testing.assert_array_equal(twice.x_train, base.x_train[originals])


@pytest.mark.parametrize("num_repeats", [0, -1])
def test_repeat_checks_num_repeats(base: Dataset, num_repeats: int):
    with pytest.raises(ValueError, match=f"num_repeats is {num_repeats}; pass an integer of at"):
        datasets.repeat(base, num_repeats=num_repeats, noise=0.1, seed=0)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_repeat_checks_noise(base: Dataset, noise: float):
    with pytest.raises(ValueError, match=f"noise is {noise}; pass a finite standard deviation"):
        datasets.repeat(base, num_repeats=3, noise=noise, seed=0)


# --- by name ---


def test_load_dataset_unknown_name():
    with pytest.raises(ValueError, match="unknown data set 'mnits'") as caught:
        datasets.load_dataset("mnits")
    assert all(name in str(caught.value) for name in datasets.DATASETS)


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_load_dataset_finds_every_name(name: str, local: Path, monkeypatch: pytest.MonkeyPatch):
    for constant in ("MNIST", "FASHION_MNIST"):
        folder = getattr(datasets, constant).name
        local.with_name(folder).symlink_to(local)
        monkeypatch.setattr(datasets, constant, tiny()._replace(name=folder))
    dataset = datasets.load_dataset(name, num_repeats=2, noise=0.0, seed=1)
    assert dataset.name == name
    assert dataset.num_repeats == (2 if name == "repeated-mnist" else 1)
    assert len(dataset.x_train) == {"digits": 1200, "repeated-mnist": 14}.get(name, 7)


# The data are not in the repository; read at import, before the fixture clears the variable.
DATA_DIR = os.environ.get("BBALD_DATA_DIR", "")


@pytest.mark.skipif(
    not (DATA_DIR and Path(DATA_DIR, "mnist").is_dir()), reason="no $BBALD_DATA_DIR/mnist"
)
def test_real_mnist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BBALD_DATA_DIR", DATA_DIR)
    mnist = datasets.load_mnist()
    assert mnist.x_train.shape == (60_000, 28, 28, 1) and mnist.x_train.dtype == np.float32
    assert mnist.x_test.shape == (10_000, 28, 28, 1) and mnist.x_test.dtype == np.float32
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    train_counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test_counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(mnist.y_train).tolist() == train_counts
    assert np.bincount(mnist.y_test).tolist() == test_counts
    assert abs(mnist.x_train.mean(dtype=np.float64)) < 1e-3
    assert abs(mnist.x_train.std(dtype=np.float64) - 1) < 1e-3


@pytest.mark.skipif(
    not (DATA_DIR and Path(DATA_DIR, "fashion-mnist").is_dir()),
    reason="no $BBALD_DATA_DIR/fashion-mnist",
)
def test_real_fashion_mnist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BBALD_DATA_DIR", DATA_DIR)
    fashion = datasets.load_fashion_mnist()
    assert fashion.x_train.shape == (60_000, 28, 28, 1)
    assert fashion.y_train[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert set(np.bincount(fashion.y_train)) == {6000}
    assert set(np.bincount(fashion.y_test)) == {1000}
    assert abs(fashion.x_train.mean(dtype=np.float64)) < 1e-3
    assert abs(fashion.x_train.std(dtype=np.float64) - 1) < 1e-3
