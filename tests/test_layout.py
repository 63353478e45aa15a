"""Which way imports run, what `import bbald_jax` loads, and the command line without its extra."""

import ast
import graphlib
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SLOWEST_FIRST
from quick import run_quickly

import bbald_jax as bb
from bbald_jax import __main__ as entry

LIBRARY = Path(bb.__file__).parent

#: Folders and files, from the ground up: whatever stands before may be imported, what stands after
#: never.
ORDER = (
    "typing",
    "files",
    "extras",
    "sources",
    "validation",
    "tiling",
    "masks",
    "information",
    "acquisition",
    "pool",
    "learning",
    "loop",
    "experiment",
    "labelling",
    "cli",
    "__main__",
)
#: They know arrays and keys, and nothing of models.
SCORING = ORDER[: ORDER.index("acquisition") + 1]
#: Names that are loaded when they are first used may come from anywhere.
FACE = "__init__"
FILES = sorted(str(path.relative_to(LIBRARY).with_suffix("")) for path in LIBRARY.rglob("*.py"))
MOST_LINES = 350


def room(file: str) -> str:
    """The folder that a file is in, or the file itself."""
    return file.partition("/")[0]


def imports(file: str) -> Iterator[tuple[str, int]]:
    """Dotted names that a file imports, wherever in the file, and the lines they are on."""
    for node in ast.walk(ast.parse((LIBRARY / f"{file}.py").read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}.py line {node.lineno}: write the import in full"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_room_has_its_place_in_the_order():
    rooms = {room(file) for file in FILES} - {FACE}
    assert rooms == set(ORDER), "put new folders into ORDER, between what they use and their use"


@pytest.mark.parametrize("file", sorted(set(FILES) - {FACE}))
def test_imports_run_one_way(file: str):
    allowed = ORDER[: ORDER.index(room(file))]
    for name, line in imports(file):
        package, _, rest = name.partition(".")
        if package == "bbald_jax":
            there = rest.partition(".")[0]
            assert there in allowed or there == room(file) != file, (
                f"{file}.py line {line} imports {name}, which does not stand before it"
            )


def test_files_of_a_folder_import_each_other_one_way():
    within = {
        file: {
            there
            for name, _ in imports(file)
            for there in FILES
            # `from package.file import name`, or `from package import file`.
            if there != file and f"{name}.".startswith(f"bbald_jax.{there.replace('/', '.')}.")
        }
        for file in FILES
        if not file.endswith(FACE)
    }
    assert sum(map(len, within.values())) > 50
    list(graphlib.TopologicalSorter(within).static_order())  # CycleError names the circle


@pytest.mark.parametrize("file", FILES)
def test_no_file_holds_two_ideas(file: str):
    num_lines = len((LIBRARY / f"{file}.py").read_text().splitlines())
    assert num_lines <= MOST_LINES, f"{file}.py has {num_lines} lines: split it"


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(f"/{FACE}")])
def test_the_face_of_a_folder_defines_nothing(file: str):
    tree = ast.parse((LIBRARY / f"{file}.py").read_text())
    docstring, *rest = tree.body
    assert ast.get_docstring(tree)
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in rest)


@pytest.mark.parametrize("file", [file for file in FILES if room(file) in SCORING])
def test_the_scoring_half_knows_arrays_only(file: str):
    packages = {name.partition(".")[0] for name, _ in imports(file)} - set(sys.stdlib_module_names)
    assert packages <= {"bbald_jax", "jax", "jaxtyping", "numpy"}


def test_scoring_loads_neither_flax_nor_optax():
    code = """
import sys
import jax
import bbald_jax as bb

for name, home in bb._LAZY.items():
    if home.partition(".")[0] in (*sys.argv[1:], "pool", "labelling"):
        getattr(bb, name)
key, log_probs = jax.random.key(0), bb.from_probs([[[0.5, 0.5], [0.9, 0.1]]] * 3)
bb.joint_entropy(log_probs)
bb.epig(log_probs, log_probs)
bb.estimate_joint_mutual_information(key, log_probs, num_configurations=4)
for acquisition in bb.catalogue(num_configurations=4).values():
    available = log_probs[:, 0, 0] < 0
    two, three = log_probs[0], log_probs[:, :, 0]
    posterior = bb.GaussianPosterior(three, three[:, 0], two, two[:, 0], 2, two[:, 0])
    inputs = bb.Inputs(log_probs, log_probs, three, three, available, posterior)
    acquisition.select(key, inputs, batch_size=2, available=available, pending=None)
session = bb.Session(3, 2)
session.tell(session.ask(log_probs, 1, "bald"), [0])
bb.select([[[0.5, 0.5], [0.9, 0.1]]] * 3, kind="probs", batch_size=2, num_configurations=4)
extra = {"flax", "optax", "orbax", "sklearn", "matplotlib", "click", "rich", "safetensors"}
print(sorted(extra & set(sys.modules)))
"""
    result = run_quickly(code, *SCORING)
    assert (result.stdout, result.returncode) == ("[]\n", 0), result.stderr


@pytest.mark.parametrize("module", ["bbald_jax", "bbald_jax.__main__"])
def test_before_a_name_is_used_nothing_is_loaded(module: str):
    # Else Ctrl-C would meet half a second of imports before the command line can take care of it.
    code = "import sys; old = {*sys.modules}; __import__(sys.argv[1]); print(*{*sys.modules} - old)"
    result = run_python(code, module)
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) == {"bbald_jax"}, result.stderr


def test_a_star_imports_every_public_name():
    names: dict[str, object] = {}
    exec("from bbald_jax import *", names)
    assert names.keys() - {"__builtins__"} == set(bb.__all__) == set(bb._LAZY)
    assert names["select"] is bb.select


@pytest.mark.parametrize("name", bb._LAZY)
def test_lazy_names_resolve(name: str):
    module = importlib.import_module(f"bbald_jax.{bb._LAZY[name]}")
    expected = module if bb._LAZY[name].endswith(name) else vars(module)[name]
    assert getattr(bb, name) is expected
    assert name in dir(bb)


def home(module: str, name: str) -> str:
    """The module that an import leads to, as `_LAZY` names it."""
    there = f"{module}.{name}".removeprefix("bbald_jax.")
    path = LIBRARY / there.replace(".", "/")
    is_module = path.is_dir() or path.with_suffix(".py").is_file()
    return there if is_module else module.removeprefix("bbald_jax.")


def test_type_checkers_see_the_same_lazy_names():
    tree = ast.parse((LIBRARY / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.asname: home(f"{node.module}", alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == bb._LAZY


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'bbald_jax' has no attribute 'select_bold'"):
        bb.select_bold  # noqa: B018


def public_functions() -> dict[str, object]:
    values = {name: getattr(bb, name) for name in dir(bb) if not name.startswith("_")}
    here = {name: value for name, value in values.items() if callable(value)}
    return {name: value for name, value in here.items() if "bbald_jax" in str(value.__module__)}


def test_public_names_are_documented():
    documented = {name: inspect.getdoc(value) or "" for name, value in public_functions().items()}
    assert len(documented) > 15
    # A NamedTuple without a docstring gets its signature as one.
    poor = [name for name, doc in documented.items() if not doc or doc.startswith(f"{name}(")]
    assert not poor


def test_no_module_bears_the_name_of_a_public_function():
    assert not {Path(file).stem for file in FILES} & set(public_functions())


BLOCK = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocked, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Blocker())
runpy.run_module("bbald_jax", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("click", "--help"),
        ("rich", "acquisitions"),
        ("matplotlib", "compare results"),
        ("orbax", "run"),
        ("safetensors", "select predictions.npy --kind=probs"),
    ],
)
def test_without_the_extra_one_line_names_it(missing: str, command: str):
    result = run_python(BLOCK, missing, "bbald", *command.split())
    assert result.returncode != 0
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert missing in line
    assert "bbald_jax[experiments]" in line


def test_without_scikit_learn_one_line_names_the_extra(tmp_path: Path):
    folder = str(tmp_path / "results")
    result = run_python(BLOCK, "sklearn", "bbald", "run", "--output-dir", folder)
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert "sklearn" in line
    assert "bbald_jax[experiments]" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "bbald_jax", "acquisitions"]
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    assert result.returncode == 1
    assert result.stderr == "bbald: standard output: No space left on device\n"


def test_the_slowest_files_are_named_as_they_are():
    assert [name for name in SLOWEST_FIRST if not (Path(__file__).parent / name).exists()] == []


@pytest.mark.parametrize("missing", ["faiss", "scipy.sparse", "skimage.feature"])
def test_without_the_packages_of_features_one_line_names_their_extra(
    missing: str, monkeypatch: pytest.MonkeyPatch
):
    def command_line(prog_name: str) -> None:
        raise ModuleNotFoundError("No module", name=missing)

    monkeypatch.setattr("bbald_jax.cli.main.main", command_line)
    for name in ("_end_at_interrupt", "gc.disable"):
        monkeypatch.setattr(f"bbald_jax.__main__.{name}", lambda: None)
    with pytest.raises(SystemExit, match=rf"no module '{missing}'; .*bbald_jax\[features\]"):
        entry.main()
