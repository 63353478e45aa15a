"""Configuration of the documentation: `sphinx-build -W --keep-going docs docs/_build/html`."""

import shutil
import sys
import typing
from importlib import metadata
from pathlib import Path

# jaxtyping then names its types as they are written: `Float[Array, "N K C"]`.
typing.GENERATING_DOCUMENTATION = "bbald_jax"  # pyright: ignore[reportAttributeAccessIssue]
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

# Notebooks and reports are pages as they stand: copied, as Sphinx does not find the links within a
# folder that is itself a link.
for folder in ("notebooks", "experiments/results"):
    copy = HERE / Path(folder).name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(HERE.parent / folder, copy, ignore=shutil.ignore_patterns(".*"))

project = "bbald_jax"
author = "The bbald_jax developers"
copyright = author
version = release = metadata.version("bbald_jax")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "docstrings", "formulas"]
exclude_patterns = ["_build"]
nitpicky = True
# Types of other packages, whose documentation is not read (a build asks no other host), and those
# that are not public.
nitpick_ignore_regex = [("py:.*", r"(?!bbald_jax).*"), ("py:class", r"bbald_jax\.\w+\..*")]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Notebooks run in the build, and again only when they change.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_ipywidgets_js = {}  # they would come from another host
# So a widget is what it says of itself.
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]

default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
maximum_signature_line_length = 80
python_display_short_literal_types = True

html_theme = "furo"
html_title = "bbald_jax"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
