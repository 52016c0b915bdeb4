"""How the documentation is built."""

import sys
from pathlib import Path

from posttroll.version import __version__

SOURCE = Path(__file__).parent
sys.path[:0] = [str(SOURCE.parent), str(SOURCE / "_extensions")]

project = "posttroll"
author = "The posttroll developers"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "generated"]
exclude_patterns = ["_extensions", "explanation/performance_table.md"]
root_doc = "index"

html_theme = "furo"
html_title = f"posttroll {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# What other projects document is not looked up, so that no network is needed. What is private is not documented, and
# type variables and the arguments of generic types are not either.
nitpick_ignore_regex = [
    ("py:.*", r"(?!posttroll\.).*"),
    ("py:.*", r"posttroll\.(.*\.)?_\w+"),
    ("py:.*", r"posttroll\.(.*\.)?(Any\w+|Function|Sender)"),
    ("py:.*", r"posttroll\..*\[.*\]"),
]

# Each page has a network of its own on loopback, with ports that nobody else uses.
doctest_global_setup = """
import loopback
_private_network = loopback.private_network()
_private_network.__enter__()
"""
doctest_global_cleanup = "_private_network.__exit__(None, None, None)"
