"""Files of the first version of the format are imported, and go on as they would have."""

import json
from pathlib import Path

import pytest

from bbald_jax.labelling.session import Session

#: Written by that version, which then asked for 5, 0 and 6.
OLD = (
    '{"kind": "bbald_jax session", "version": 1, "sha256": '
    '"736fa00f5ebc0e491772e20fecf028dcc4dd7a4830603f5035a701f6ea2a9d5b", "content": {"settings": '
    '{"num_points": 12, "num_classes": 3, "ids": ["p0.png", "p1.png", "p2.png", "p3.png", "p4.png",'
    ' "p5.png", "p6.png", "p7.png", "p8.png", "p9.png", "p10.png", "p11.png"], "seed": 4}, '
    '"history": [["ask", [9, 11, 1, 7], [], "random"], ["tell", [9, 11], [2, 0], null], ["skip", '
    '[1], [], null], ["ask", [10, 2], [], "random"]]}}\n'
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "labels.json").write_text(OLD)
    return tmp_path / "labels.json"


@pytest.mark.parametrize("name", ["labels.db", None])
def test_an_old_file_goes_on(old: Path, name: str | None):
    path = None if name is None else old.with_name(name)
    session = Session.from_version_1(old, path)
    assert (session.num_points, session.num_classes, session.seed) == (12, 3, 4)
    assert session.ids.tolist() == [f"p{i}.png" for i in range(12)]
    assert [x.tolist() for x in session.labelled] == [[9, 11], [2, 0]]
    assert session.pending.tolist() == [2, 7, 10]
    assert session.skipped.tolist() == [1]
    assert session.ask(None, 3, "random").tolist() == [5, 0, 6]
    assert old.read_text() == OLD
    if path is not None:
        with pytest.raises(FileExistsError, match=r"labels.db: is there already"):
            Session.from_version_1(old, path)


def test_a_damaged_one_is_refused(old: Path):
    old.write_text(OLD.replace("[2, 0]", "[2, 1]"))
    with pytest.raises(ValueError, match="damaged, its content is not what was saved"):
        Session.from_version_1(old)
    old.write_text(json.dumps({"kind": "recipe"}))
    with pytest.raises(ValueError, match="not a bbald_jax session"):
        Session.from_version_1(old)
