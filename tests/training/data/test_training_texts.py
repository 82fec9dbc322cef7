"""Markup to text, text to clean text, and why a document is dropped."""

import pytest

from argosy.training.data.clean import cleaned, repeated_share, why_dropped
from argosy.training.data.extract import NotTextError, decoded, from_html, kind_of, texts
from argosy.training.data.recipe import Cleaning
from tests.training.data.made import text

_HTML = """<html><head><title>No</title><style>p {}</style></head><body>
<nav><ul><li>Home</li></ul></nav><script>var no = "</p>";</script>
<h1>Sets &amp; maps</h1><p>A set   holds
each <b>value</b> once.</p><pre>for x in y:
    print(x)
</pre><ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table>
<footer>No</footer></body></html>"""


def test_html_reads_as_it_is_shown():
    assert cleaned(from_html(_HTML)) == (
        "# Sets & maps\n\nA set holds each value once.\n\nfor x in y:\n    print(x)\n\n"
        "- one\n- two\n\na b"
    )


def test_nested_skipped_elements_end_where_they_end():
    assert from_html("<nav>a<nav>b</nav>c</nav>d") == "d"


def test_broken_html_still_gives_its_words():
    assert "left open" in from_html("<p>left open <b>and <!-- unfinished")


def test_rst_loses_its_roles_and_keeps_its_code():
    rst = (
        ".. _a-label:\n\nSets\n====\n\n.. index:: set\n\n.. function:: add(x)\n\n"
        "   Adds :class:`~a.b.C` to ``self``; see `the page <https://x>`_.\n\n"
        "   .. versionadded:: 3.2\n\n.. code-block:: python\n\n   s.add(1)\n"
    )
    assert cleaned(next(texts(rst.encode(), "rst"))) == (
        "Sets\n====\n\nadd(x)\n\n   Adds a.b.C to self; see the page.\n\n"
        "   New in version 3.2\n\n   s.add(1)"
    )


def test_markdown_loses_addresses_alone():
    markdown = b"# A\n\n![pic](x.png) see [this](http://y) <!-- no -->\n\n[z]: http://z\n"
    assert cleaned(next(texts(markdown, "markdown"))) == "# A\n\n see this"


def test_lines_of_json_are_documents():
    lines = b'{"text": "one"}\n\n{"text": "two", "more": 1}\n'
    assert [*texts(lines, "jsonl")] == ["one", "two"]


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"\x7fELF\0\0", "text", "binary"),
        (b"caf\xe9 au lait", "text", "not_utf8"),
        (b'{"text": "one"}\n{"te', "jsonl", "not_json"),
        (b'{"body": "one"}', "jsonl", "no_text_field"),
    ],
)
def test_what_is_no_text_is_told_by_its_reason(data: bytes, kind, reason: str):
    with pytest.raises(NotTextError, match=reason):
        list(texts(data, kind))


def test_html_is_decoded_as_it_says():
    data = b'<meta charset="iso-8859-1"><p>caf\xe9</p>'
    assert decoded(data, is_html=True).endswith("café</p>")


def test_a_name_tells_the_kind():
    names = ("a.rst.txt", "a.HTML", "a.jsonl.gz", "a.md", "a.txt", "LICENSE")
    assert [kind_of(name) for name in names] == [
        "rst",
        "html",
        "jsonl",
        "markdown",
        "text",
        "text",
    ]


def test_clean_text_has_one_form():
    messy = "\ufeffe\u0301te\u0301 \t\r\n\r\n\r\n\r\na\x00b\x1b[31m\u200bc\u2028d\ud800"
    assert cleaned(messy) == "été\n\nab[31mc\nd"
    assert cleaned(cleaned(messy)) == cleaned(messy)


def test_documents_are_dropped_for_a_reason_that_is_said():
    rules = Cleaning()
    assert why_dropped(text(1), rules) is None
    assert why_dropped("short", rules) == "too_short"
    assert why_dropped("the very same line\n" * 50, rules) == "too_repetitive"
    assert why_dropped("".join(f"{n} {n * n}\n" for n in range(200)), rules) == "too_few_letters"


def test_the_repeated_share_counts_characters_after_their_first_line():
    assert repeated_share("aaaa\nbbbb\naaaa\n") == pytest.approx(1 / 3)
    assert repeated_share("") == 0
