"""Picklist entries are added where they belong, and every other byte stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.config.edits import add_entries, add_rows, scalar
from crm_sync.config.text import parse
from crm_sync.errors import ConfigError

AT = ("syncs", "s", "fields", "L")


def added(field: str, **entries: list[str]) -> str:
    """The lines of the field after the entries were added; `field` begins in column 7."""
    before, after = "# a file\nsyncs:\n  s:\n    fields:\n", "      Title: person.title  # the end\n"
    text = add_entries((before + field + after).encode(), AT, entries).decode()
    assert text.startswith(before)
    assert text.endswith(after)
    return text[len(before) : -len(after)]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        # A list in brackets.
        ("      L: {from: x, picklist: {VP: [vp]}}\n", "      L: {from: x, picklist: {VP: [vp, head]}}\n"),
        ("      L: {from: x, picklist: {VP: [ vp , ]}}\n", "      L: {from: x, picklist: {VP: [ vp, head , ]}}\n"),
        ("      L: {from: x, picklist: {VP: []}}\n", "      L: {from: x, picklist: {VP: [head]}}\n"),
        (
            "      L:\n        from: x\n        picklist:\n          VP: [vp,\n            svp  # both\n          ]  # so\n",
            "      L:\n        from: x\n        picklist:\n          VP: [vp,\n            svp, head  # both\n          ]  # so\n",
        ),
        # One word.
        ("      L: {from: x, picklist: {VP: vp}}\n", "      L: {from: x, picklist: {VP: [vp, head]}}\n"),
        (
            "      L:\n        from: x\n        picklist:\n          VP: 'it''s'   # one\n",
            "      L:\n        from: x\n        picklist:\n          VP: ['it''s', head]   # one\n",
        ),
        (
            "      L:\n        from: x\n        picklist:\n          VP: a, b\n        max: 3\n",
            '      L:\n        from: x\n        picklist:\n          VP: ["a, b", head]\n        max: 3\n',
        ),
        # A list of lines.
        (
            "      L:\n        from: x\n        picklist:\n          VP:\n            - vp  # one\n\n        when: y\n",
            "      L:\n        from: x\n        picklist:\n          VP:\n            - vp  # one\n            - head\n\n        when: y\n",
        ),
        (
            "      L:\n        picklist:\n          VP:\n          -   vp\n          -\n              svp\n        from: x\n",
            "      L:\n        picklist:\n          VP:\n          -   vp\n          -\n              svp\n          - head\n        from: x\n",
        ),
        # A value that is not there yet.
        ("      L: {from: x, picklist: {A: [a]}}\n", "      L: {from: x, picklist: {A: [a], VP: [head]}}\n"),
        (
            "      L:\n        from: x\n        picklist:   # ours\n          A: a # last\n        # foot\n",
            "      L:\n        from: x\n        picklist:   # ours\n          A: a # last\n          VP: [head]\n        # foot\n",
        ),
        # No table yet.
        (
            "      L:\n        from: x  # here\n      # foot\n",
            "      L:\n        from: x  # here\n        picklist:\n          VP: [head]\n      # foot\n",
        ),
        ("      L: {from: x}  # here\n", "      L: {from: x, picklist: {VP: [head]}}  # here\n"),
        ("      L: x  # here\n", "      L:\n        from: x  # here\n        picklist:\n          VP: [head]\n"),
        ("      L: 'x'\n", "      L:\n        from: 'x'\n        picklist:\n          VP: [head]\n"),
        (
            '      L: {from: x, picklist_file: "builtin:y"}\n',
            '      L: {from: x, picklist_file: "builtin:y", picklist: {VP: [head]}}\n',
        ),
    ],
)
def test_an_entry_takes_the_form_that_is_there(field: str, expected: str) -> None:
    assert added(field, VP=["head"]) == expected


def test_the_short_form_inside_brackets_stays_inside_them() -> None:
    text = b"syncs: {s: {fields: {L: x, M: y}}}\n"

    assert add_entries(text, AT, {"VP": ["head", "vp"]}) == (
        b"syncs: {s: {fields: {L: {from: x, picklist: {VP: [head, vp]}}, M: y}}}\n"
    )


def test_a_long_list_goes_on_in_the_next_line() -> None:
    words = [f"word number {number}" for number in range(12)]

    text = added("      L:\n        from: x\n        picklist:\n          VP: [vp]\n", VP=words)

    lines = text.splitlines()
    assert [line[:29] for line in lines[3:]] == ["          VP: [vp, word numbe", "              word number 6, "]
    assert max(map(len, lines)) <= 120


def test_a_file_indented_by_four_stays_so() -> None:
    text = "syncs:\n    s:\n        fields:\n            L: x\n"

    assert add_entries(text.encode(), AT, {"VP": ["vp"]}).decode() == (
        "syncs:\n    s:\n        fields:\n            L:\n                from: x\n                picklist:\n"
        "                    VP: [vp]\n"
    )


def test_line_ends_and_a_byte_order_mark_stay() -> None:
    text = (
        "\ufeffsyncs:\r\n  s:\r\n    fields:\r\n      L:\r\n        from: x\r\n        picklist:\r\n          A: a\r\n"
    )

    assert add_entries(text.encode(), AT, {"VP": ["vp"]}).decode() == text + "          VP: [vp]\r\n"


def test_a_last_line_without_an_end_is_ended() -> None:
    text = "syncs:\n  s:\n    fields:\n      L:\n        from: x\n        picklist:\n          A: a  # é"

    assert add_entries(text.encode(), AT, {"VP": ["vp"]}).decode() == text + "\n          VP: [vp]"


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no syncs\.s\.fields\.L"):
        add_entries(b"syncs:\n  s:\n    fields:\n      M: x\n", AT, {"VP": ["vp"]})


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co")), min_size=1, max_size=12)


@given(
    st.lists(WORDS, max_size=4, unique=True),
    st.sampled_from(["      L:\n        from: x\n", "      L: {from: x}\n", "      L: x\n"]),
)
def test_what_is_added_reads_as_what_was_meant_and_takes_nothing_away(words: list[str], field: str) -> None:
    before = f"syncs:\n  s:\n    fields:\n{field}    match: {{send: y}}  # end\n"

    text = before.encode()
    for word in words:
        text = add_entries(text, AT, {word: [word, f"{word} 2"]})

    document = parse(text)
    assert document.problems == ()
    node = document.node((*AT, "picklist"))
    found = {name.text: [item.text for item in value.items] for name, value in node.entries} if node else {}
    assert found == {word: [word, f"{word} 2"] for word in words}
    rest = iter(text.decode())
    assert all(character in rest for character in before.replace("L: x", "L:x"))


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20))
def test_every_text_can_be_written_in_a_block_and_in_brackets(text: str) -> None:
    written = f"a: {scalar(text)}\nb: [{scalar(text)}, {{{scalar(text)}: 1}}]\n"

    root = parse(written.encode()).root

    assert root is not None
    a, b = root.get("a"), root.get("b")
    assert a is not None
    assert b is not None
    assert (a.text, b.items[0].text, b.items[1].entries[0][0].text) == (text, text, text)


# --- picklist files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"apollo,crm\nvp,VP\n", b"apollo,crm\nvp,VP\nhead,VP\n"),
        (b"apollo,crm\nvp,VP", b"apollo,crm\nvp,VP\nhead,VP\n"),
        (b"\xef\xbb\xbfcrm;note;apollo\r\nVP;x;vp\r\n", b"\xef\xbb\xbfcrm;note;apollo\r\nVP;x;vp\r\nVP;;head\r\n"),
        (b"apollo,crm,seen\nHead,,12\nvp,VP,1\n", b"apollo,crm,seen\nHead,VP,12\nvp,VP,1\n"),
        (b'apollo,crm\n"head\nx",\nvp,VP\n', b'apollo,crm\n"head\nx",\nvp,VP\nhead,VP\n'),
        (b"apollo,crm\n\nhead\n", b"apollo,crm\n\nhead\nhead,VP\n"),
    ],
)
def test_rows_are_filled_in_or_added_in_the_files_own_way(content: bytes, expected: bytes) -> None:
    assert add_rows(content, {"VP": ["head"]}) == expected


def test_a_value_with_a_separator_is_quoted() -> None:
    assert add_rows(b"apollo,crm\n", {"Oil, Gas": ["oil & energy", 'a "b"']}).decode() == (
        'apollo,crm\noil & energy,"Oil, Gas"\n"a ""b""","Oil, Gas"\n'
    )
