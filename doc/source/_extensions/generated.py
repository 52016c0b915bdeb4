"""Parts of the reference that are made from the package itself, so that they are never out of date.

``settings-table``: every setting. ``program-help <command>``: what a command says about itself.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from posttroll.settings import SETTINGS, Setting


class SettingsTable(SphinxDirective):
    """A table with a row for each setting."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        heads = [[nodes.Text(head)] for head in ("Setting", "Default", "Must be", "Meaning")]
        rows = [self._row(setting) for setting in SETTINGS.values()]
        return [_table([25, 12, 18, 45], heads, rows)]

    def _row(self, setting: Setting) -> list[list[nodes.Node]]:
        default = "unset" if setting.default is None else repr(setting.default)
        old = setting.old_environment
        meaning = setting.help + (f" The older variable {old} is read, too." if old else "")
        target = nodes.target("", "", ids=[f"setting-{setting.name.replace('_', '-')}"])
        return [[target, nodes.literal("", setting.name)], _literal(default), _text(setting.kind), _text(meaning)]


class ProgramHelp(SphinxDirective):
    """What a command prints for ``--help``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Run the command and return its output."""
        self.env.note_reread()
        command = Path(sysconfig.get_path("scripts")) / self.arguments[0]
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        done = subprocess.run(
            [command, "--help"], capture_output=True, text=True, env=environment, timeout=60, check=True
        )
        return [nodes.literal_block(done.stdout, done.stdout, language="none")]


def _literal(text: str) -> list[nodes.Node]:
    return [nodes.literal("", text)]


def _text(text: str) -> list[nodes.Node]:
    return [nodes.Text(text)]


def _table(widths: list[int], heads: list[list[nodes.Node]], rows: list[list[list[nodes.Node]]]) -> nodes.table:
    body = nodes.tbody("", *(_table_row(row) for row in rows))
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += [nodes.thead("", _table_row(heads)), body]
    return nodes.table("", group)


def _table_row(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("program-help", ProgramHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
