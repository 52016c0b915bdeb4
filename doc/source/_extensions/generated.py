"""Parts of the reference that are made from the package itself, so that they are never out of date.

``settings-table``: every setting. ``program-help <command>``: what a command says about itself. ``link-frames``: the
frames of the link protocol; ``container-frames``: those of containers beside them. ``link-states`` and
``link-patience``: its states and times; the content says what each event or time is, one a line, and has to name all of
them. And what annotations leave out is filled in, so that classes of one name are told apart.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sysconfig
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
from docutils import nodes
from msgspec import inspect as types
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from state_diagram import draw

from posttroll.protocol import frames
from posttroll.protocol.link import TRANSITIONS, Patience
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


class _Frames(SphinxDirective):
    """What describes frames."""

    def _frame(self, kind: type[msgspec.Struct], common: Collection[str] = ()) -> list[nodes.Node]:
        info = types.type_info(kind)
        assert isinstance(info, types.StructType)
        name = str(info.tag or kind.__name__.lower())
        target = nodes.target("", "", ids=[f"frame-{name}"])
        title = nodes.paragraph("", "", target, nodes.strong("", "", nodes.literal("", name)))
        if info.array_like:
            title += nodes.Text(f": an array of {', '.join(field.name for field in info.fields)}")
        texts = [nodes.paragraph("", "", *self._parse(part)) for part in inspect.getdoc(kind).split("\n\n")]
        fields = [field for field in info.fields if field.name not in common]
        if not fields:
            return [title, *texts]
        heads = [_text("Field"), _text("Value"), _text("Default")]
        rows = [[_literal(one.name), _text(_describe(one.type)), _default(one)] for one in fields]
        return [title, *texts, _table([15, 60, 25], heads, rows)]

    def _parse(self, text: str) -> list[nodes.Node]:
        parsed, messages = self.parse_inline(" ".join(text.split()))
        return [*parsed, *messages]


class LinkFrames(_Frames):
    """The fields that all frames have, then each frame, and what they are made of."""

    def run(self) -> list[nodes.Node]:
        """Return a text and a table for each."""
        self.env.note_reread()
        kinds = typing.get_args(frames.Frame)
        common = kinds[0].__mro__[1]
        meanings = ModuleAnalyzer.for_module(frames.__name__).find_attr_docs()
        parts: list[nodes.Node] = [self._common(common, meanings)]
        for kind in (*kinds, frames.Outcome):
            parts.extend(self._frame(kind, set(common.__struct_fields__)))
        return parts

    def _common(self, kind: type[msgspec.Struct], meanings: Mapping[tuple[str, str], list[str]]) -> nodes.Node:
        heads = [_text("Field"), _text("Value"), _text("Meaning")]
        rows = [[_literal("frame"), _text("text"), _text("Which frame it is.")]]
        for field in _fields(kind):
            meaning = self._parse(" ".join(meanings[kind.__name__, field.name]))
            rows.append([_literal(field.name), _text(_describe(field.type)), meaning])
        return _table([15, 35, 50], heads, rows)


class ContainerFrames(_Frames):
    """What containers say to each other beside the frames of their links."""

    def run(self) -> list[nodes.Node]:
        """Return a text and a table for each."""
        self.env.note_reread()
        return [node for kind in (frames.Open, frames.Close) for node in self._frame(kind)]


class LinkStates(SphinxDirective):
    """The states of a receiver and what leads from one to the next, as a picture and a table."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return both."""
        self.env.note_reread()
        meanings = _meanings(self, dict.fromkeys(event for _, event in TRANSITIONS))
        picture = nodes.raw("", draw(TRANSITIONS, "The states of a receiver"), format="html")
        heads = [_text("State"), _text("Event"), _text("Next state"), _text("What happens")]
        rows = [
            [_literal(state), _literal(event), _literal(target), _text(meanings[event])]
            for (state, event), target in TRANSITIONS.items()
        ]
        return [picture, _table([15, 15, 15, 55], heads, rows)]


class LinkPatience(SphinxDirective):
    """How long the ends of a link wait."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        seconds = {field.name: field.default for field in dataclasses.fields(Patience)}
        meanings = _meanings(self, seconds)
        rows = [[_literal(name), _text(f"{default:g}"), _text(meanings[name])] for name, default in seconds.items()]
        return [_table([15, 15, 70], [_text("Time"), _text("Seconds"), _text("Meaning")], rows)]


def _meanings(directive: SphinxDirective, names: Collection[str]) -> dict[str, str]:
    """Return what the content of a directive says of each name, one a line; an error if it is not about these."""
    lines = (line.partition(": ") for line in directive.content if line.strip())
    meanings = {name.strip(): meaning for name, _, meaning in lines}
    if meanings.keys() != set(names):
        raise directive.error(f"{directive.name} explains {', '.join(meanings)}, but there are {', '.join(names)}")
    return meanings


def _fields(kind: type[msgspec.Struct]) -> tuple[types.Field, ...]:
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return info.fields


def _default(field: types.Field) -> list[nodes.Node]:
    if field.default_factory is not msgspec.NODEFAULT:
        return _literal(msgspec.json.encode(field.default_factory()).decode())
    return _text("") if field.default is msgspec.NODEFAULT else _literal(msgspec.json.encode(field.default).decode())


def _describe(kind: types.Type) -> str:
    return _DESCRIPTIONS[type(kind)](kind)


def _describe_text(kind: Any) -> str:
    return f"text of {kind.min_length or 0} to {kind.max_length} letters"


def _describe_number(kind: Any) -> str:
    return "whole number" if kind.le is None else f"whole number, {kind.ge} to 2^{kind.le.bit_length() - 1}"


def _describe_object(kind: Any) -> str:
    by_number = isinstance(kind.key_type, types.IntType)
    key = "a number written as text" if by_number else _describe(kind.key_type)
    return f"object with up to {kind.max_length} members, each {_describe(kind.value_type)} by {key}"


_DESCRIPTIONS: dict[type[types.Type], Callable[[Any], str]] = {
    types.StrType: _describe_text,
    types.IntType: _describe_number,
    types.BoolType: lambda _: "true or false",
    types.NoneType: lambda _: "null",
    types.LiteralType: lambda kind: " or ".join(f'"{value}"' for value in kind.values),
    types.ListType: lambda kind: f"array of up to {kind.max_length}, each {_describe(kind.item_type)}",
    types.TupleType: lambda kind: f"[{', '.join(map(_describe, kind.item_types))}]",
    types.DictType: _describe_object,
    types.UnionType: lambda kind: " or ".join(map(_describe, kind.types)),
    types.StructType: lambda kind: f"an {kind.cls.__name__.lower()}",
}


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


def _tell_twins_apart(_: Sphinx, doctree: nodes.document) -> None:
    """Where an annotation says no more than `Messenger`, have it mean that of its own front."""
    for reference in doctree.findall(addnodes.pending_xref):
        if reference["reftarget"] == "Messenger":
            front = "posttroll.asyncio" if reference["py:module"].startswith("posttroll.asyncio") else "posttroll"
            reference["reftarget"] = f"{front}.messenger.Messenger"


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.connect("doctree-read", _tell_twins_apart)
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("program-help", ProgramHelp)
    app.add_directive("link-frames", LinkFrames)
    app.add_directive("container-frames", ContainerFrames)
    app.add_directive("link-states", LinkStates)
    app.add_directive("link-patience", LinkPatience)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
