"""From the library's docstrings to pages: every public name, and formulas as they stand.

`.. public-names:: FOLDER ...` documents all that `bbald_jax.__all__` has from these folders (or
files) of the library. The docstrings write code as `code`, formulas as plain lines, and examples
between fences; reStructuredText gets them as literal blocks.
"""

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import bbald_jax as bb

# A paragraph without code in it, and without a full stop or a colon at its end, is a formula.
_FORMULA = re.compile(r"[^`]*[^`.:]")
# Outside of code and *emphasis*, signs that reStructuredText would take for markup.
_MARKUP = re.compile(r"(`[^`]*`|\*\w[\w\s]*\*(?!\w))|([*|]|(?<=\w)_(?!\w))")

# A description that is but a letter, "C.", would begin a list.
_LETTER = re.compile(r"(?m)(?<=: )([A-Z])\.$")


def names_from(folders: list[str]) -> list[str]:
    """The public names that these folders (or files) define, in the order of `__all__`."""
    return [name for name in bb.__all__ if bb._LAZY[name].partition(".")[0] in folders]


def directive(name: str) -> list[str]:
    """What documents one public name."""
    value = getattr(bb, name)
    if isinstance(value, ModuleType):
        options = [":members:", *[":imported-members:"] * hasattr(value, "__path__")]
        lines = [f".. automodule:: {value.__name__}", *(f"   {option}" for option in options)]
        return [f"bb.{name}", "-" * (len(name) + 3), "", *lines, ""]
    if inspect.isclass(value):
        # What is spread over several of our own classes; not what comes from flax, or a tuple.
        bases = value.__mro__[1:-1]
        is_ours = bool(bases) and all(base.__module__.startswith("bbald_jax") for base in bases)
        inherited = ["   :inherited-members:"] * is_ours
        return [f".. autoclass:: bbald_jax.{name}", "   :members:", *inherited, ""]
    kind = "function" if callable(value) else "data"
    return [f".. auto{kind}:: bbald_jax.{name}", *["   :no-value:"] * (kind == "data"), ""]


class PublicNames(SphinxDirective):
    """The public names of some folders of the library, one after the other."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Parse one autodoc directive for each name."""
        names = names_from(self.arguments[0].split())
        lines = [line for name in names for line in directive(name)]
        section = nodes.section()
        section.document = self.state.document
        self.state.nested_parse(StringList(lines, "public-names"), 0, section, match_titles=True)
        return section.children


def as_written(lines: list[str]) -> Iterator[str]:
    """Formulas and fenced examples become literal blocks; stray markup is taken as it stands."""
    paragraph: list[str] = []
    fenced = False
    for number, line in enumerate([*lines, ""]):
        if line.strip().startswith("```"):
            fenced = not fenced
            yield from ["", *[".. code-block:: python", ""] * fenced]
        elif fenced:
            yield f"   {line}"
        elif line.strip():
            paragraph.append(line)
        else:
            is_first = number == len(paragraph)
            if not is_first and _FORMULA.fullmatch("\n".join(paragraph)):
                yield from [".. code-block:: text", "", *(f"    {line}" for line in paragraph)]
            else:
                text = _MARKUP.sub(lambda sign: sign[1] or f"\\{sign[2]}", "\n".join(paragraph))
                text = text.replace("Returns:\n", ":returns:\n")  # with any colon that follows
                yield from _LETTER.sub(r"\1\\.", text).split("\n")
            yield ""
            paragraph = []


def process(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Mend a docstring in place, before napoleon reads its sections."""
    del app, options
    if what == "data":  # its comment, not the docstring of its class
        short = name.rpartition(".")[2]
        analyzer = ModuleAnalyzer.for_module(f"bbald_jax.{bb._LAZY[short]}")
        lines[:] = analyzer.find_attr_docs()["", short]
    lines[:] = as_written(lines)


def skip(app: Sphinx, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of a NamedTuple: its docstring says what they are."""
    del app, what, name, skipped, options
    return True if (inspect.getdoc(value) or "").startswith("Alias for field number") else None


def shorten(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str, Any] | None:
    """Leave out what flax adds to the fields of each module: its parent and its name."""
    del app, what, name, value, options
    if signature is None or "_Sentinel" not in signature:
        return None
    return re.sub(r"(, )?parent: .*_Sentinel.*, name: [^)]*", "", signature), returns


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page documents."""
    del app
    there = {name for name, *_ in env.get_domain("py").get_objects()}
    for name in bb.__all__:
        value = getattr(bb, name)
        path = value.__name__ if isinstance(value, ModuleType) else f"bbald_jax.{name}"
        if path not in there:
            logging.getLogger(__name__).warning(f"{path} is on no page of the API")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the hook."""
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", shorten)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
