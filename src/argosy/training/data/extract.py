"""Files to plain text: small extractors that keep what a reader reads, and code as it stands.

They know what documentation uses; of anything else the markup stays in the text. No layout is
guessed and no table is rebuilt: cells follow each other on a line.
"""

import html.parser
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

Kind = Literal["text", "markdown", "rst", "html", "jsonl"]

_SUFFIXES: dict[str, Kind] = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".rst": "rst",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".md": "markdown",
}


class NotTextError(Exception):
    """The bytes are no text, or not of the kind that they were taken for; the message is why."""


def kind_of(name: str) -> Kind:
    """By its suffix; `.rst.txt`, as Sphinx ships its sources, and `.gz` are seen through."""
    lower = name.lower().removesuffix(".gz")
    stem = lower.removesuffix(".txt")
    for suffix, kind in _SUFFIXES.items():
        if lower.endswith(suffix) or (stem != lower and stem.endswith(suffix)):
            return kind
    return "text"


def texts(data: bytes, kind: Kind, *, text_field: str = "text") -> Iterator[str]:
    """The documents of one file. Raises NotTextError."""
    if kind == "jsonl":
        yield from _lines(data, text_field)
        return
    text = decoded(data, is_html=kind == "html")
    match kind:
        case "html":
            yield from_html(text)
        case "rst":
            yield from_rst(text)
        case "markdown":
            yield from_markdown(text)
        case _:
            yield text


_CHARSET = re.compile(rb"""charset=["']?([\w-]{3,20})""")


def decoded(data: bytes, *, is_html: bool = False) -> str:
    """UTF-8, with or without its mark; of HTML else what it says it is."""
    if b"\0" in data[:8192]:
        raise NotTextError("binary")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        told = _CHARSET.search(data[:2048]) if is_html else None
        if told is not None:
            try:
                return data.decode(told[1].decode("ascii"))
            except (LookupError, UnicodeDecodeError):
                pass
        raise NotTextError("not_utf8") from error


def _lines(data: bytes, text_field: str) -> Iterator[str]:
    for line in data.splitlines():
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotTextError("not_json") from error
        text = value.get(text_field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise NotTextError("no_text_field")
        yield text


# ---- HTML

_SKIPPED = frozenset(
    {"script", "style", "head", "nav", "header", "footer", "aside", "noscript", "template", "svg"}
    | {"button", "select", "form", "iframe", "object"}
)
_PARAGRAPHS = frozenset(
    {"p", "div", "section", "article", "main", "table", "ul", "ol", "dl", "blockquote", "pre"}
    | {"h1", "h2", "h3", "h4", "h5", "h6", "figure", "hr", "details", "body"}
)
_LINES = frozenset({"br", "tr", "li", "dt", "dd", "summary", "caption", "figcaption"})
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}


class _Extractor(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._skipping: str | None = None
        self._skip_depth = 0
        self._pre_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipping is not None:
            self._skip_depth += tag == self._skipping
            return
        if tag in _SKIPPED:
            self._skipping, self._skip_depth = tag, 1
            return
        self._pre_depth += tag == "pre"
        self._break(tag)
        if tag in _HEADINGS:
            self.pieces.append(_HEADINGS[tag])
        elif tag == "li":
            self.pieces.append("- ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipping is None:
            self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._skipping is not None:
            self._skip_depth -= tag == self._skipping
            if self._skip_depth == 0:
                self._skipping = None
            return
        if tag == "pre":
            self._pre_depth = max(0, self._pre_depth - 1)
        if tag in {"td", "th"}:
            self.pieces.append(" ")
        elif tag in _PARAGRAPHS:
            self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._skipping is None:
            self.pieces.append(data if self._pre_depth else _WHITE.sub(" ", data))

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.pieces.append("\n\n")
        elif tag in _LINES:
            self.pieces.append("\n")


_WHITE = re.compile(r"[ \t\r\n\f]+")
_AROUND_BREAK = re.compile(r" ?(\n+) ?(?=[^ ]|$)")  # not before the indents of code
_MANY_BREAKS = re.compile(r"\n{3,}")


def from_html(text: str) -> str:
    """What it shows, without navigation, scripts and styles."""
    extractor = _Extractor()
    extractor.feed(text)
    extractor.close()
    joined = _AROUND_BREAK.sub(r"\1", "".join(extractor.pieces))
    return _MANY_BREAKS.sub("\n\n", joined).strip()


# ---- reStructuredText

_RST_DROPPED = re.compile(
    r"^[ \t]*\.\. (?:_[^\n]*:[^\n]*|(?:index|module|currentmodule|moduleauthor|sectionauthor"
    r"|highlight|toctree|contents|only|raw|meta|image|figure|rubric|tabularcolumns|role"
    r"|include|literalinclude|code-block|sourcecode|doctest|testsetup|testcleanup|audit-event"
    r"|cssclass|program)::[^\n]*)$"
    r"(?:\n[ \t]*:[\w-]+:[^\n]*$)*",
    re.MULTILINE,
)
_RST_OPTION = re.compile(
    r"^[ \t]+:(?:noindex|no-index|hidden|maxdepth|options|name|caption|widths|header-rows|numbered"
    r"|synopsis|platform|class|align|width|lineno-start|linenos|emphasize-lines|deprecated)[^\n]*\n",
    re.MULTILINE,
)
_RST_DIRECTIVE = re.compile(r"^([ \t]*)\.\. ([\w:+-]+)::[ \t]*", re.MULTILINE)
_RST_COMMENT = re.compile(
    r"^\.\.(?:[ \t]+[^\n]*)?\n(?:[ \t]+[^\n]*\n|\n(?=[ \t]+\S))*", re.MULTILINE
)
_RST_ROLE_NAMED = re.compile(r":[\w:+-]+:`([^`<]+?)\s*<[^`>]*>`")
_RST_ROLE = re.compile(r":[\w:+-]+:`[!~]?([^`]+)`")
_RST_LITERAL = re.compile(r"``([^`\n]+)``")
_RST_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{1,2}")
_RST_REFERENCE = re.compile(r"`([^`\n]+)`_{0,2}")
_RST_SUBSTITUTION = re.compile(r"\|([^|\n]+)\|_{0,2}")


def from_rst(text: str) -> str:
    """Without roles, labels and the directives that say nothing; headings keep their underlines."""
    text = text.replace("\r\n", "\n")
    text = _RST_DROPPED.sub("", text)
    text = _RST_OPTION.sub("", text)
    text = _RST_DIRECTIVE.sub(_directive, text)
    text = _RST_COMMENT.sub("", text)
    for pattern in (_RST_ROLE_NAMED, _RST_ROLE, _RST_LITERAL, _RST_LINK, _RST_REFERENCE):
        text = pattern.sub(r"\1", text)
    text = _RST_SUBSTITUTION.sub(r"\1", text)
    return text.replace("::\n", ":\n")


def _directive(found: re.Match[str]) -> str:
    """`.. function:: open(path)` is read as `open(path)`, `.. versionadded:: 3.2` as it stands."""
    indent, name = found[1], found[2]
    match name:
        case "versionadded":
            return f"{indent}New in version "
        case "versionchanged":
            return f"{indent}Changed in version "
        case "deprecated" | "deprecated-removed":
            return f"{indent}Deprecated since version "
        case "warning" | "seealso" | "tip" | "important":
            return f"{indent}{name.capitalize()}: "
        case _ if name.endswith(("class", "exception")):
            return f"{indent}{name.rsplit(':', 1)[-1]} "
        case _:
            return indent if ":" in name or name.islower() else found[0]


# ---- Markdown

_MD_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MD_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\([^)\n]*\)")
_MD_REFERENCE = re.compile(r"^\[[^\]\n]+\]: +\S+[^\n]*\n", re.MULTILINE)


def from_markdown(text: str) -> str:
    """As it stands, without the addresses of its links, pictures and comments."""
    text = _MD_COMMENT.sub("", text)
    text = _MD_LINK.sub(lambda found: "" if found[1] else found[2], text)
    return _MD_REFERENCE.sub("", text)
