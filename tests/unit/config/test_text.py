"""What can be wrong with the text itself, and where the messages say it is."""

from __future__ import annotations

import time

import pytest

from crm_sync.config.text import MAX_BYTES, Kind, parse


def problems(text: str | bytes) -> list[str]:
    document = parse(text.encode() if isinstance(text, str) else text)
    return [f"{p.line}:{p.column} {p.path}: {p.message}".replace(" : ", " ") for p in document.problems]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\n\tb: 2\n", "2:1", "a tab character"),
        ("a:\n  - x\n  \t- y\n", "3:3", "a tab character"),
        ("a: b: c\n", "1:5", "a colon followed by a blank"),
        ("a: [1, 2\nb: 3\n", "2:2", "a colon followed by a blank"),
        ("a: 'x\nb: 1\n", "1:4", "a quote opens here and is not closed"),
        ('a: 1\nb: "x\nc: 1\nd: "y"\n', "2:4", "a quote opens here and closes only in line 4"),
        ("a: ['x, y]\nb: 1\nc: 'y'\n", "1:5", "a quote opens here and closes only in line 3"),
        ("a: [1, 2\n", "2:1", "the file ends inside a quote or a bracket"),
        ("a:\n  b: 1\n c: 2\n", "3:2", "the indentation"),
        ("a: 1\nb\nc: 3\n", "3:1", "a key without a colon"),
        ("a: @x\n", "1:4", "a value cannot start with this character"),
        ("{a: 1}}\n", "1:7", "the indentation or a bracket"),
        ('a: "\\q"\n', "1:6", "an unknown escape"),
        ("a: 1\nb: \x07\n", "2:4", "this character is not allowed"),
        ("a: 1\n---\nb: 2\n", "2:1", "a second YAML document"),
        ("", "1:1", "the file is empty"),
        ("# only a comment\n", "1:1", "the file is empty"),
    ],
)
def test_text_that_is_no_yaml_is_refused_with_its_place(text: str, place: str, words: str) -> None:
    document = parse(text.encode())

    assert document.root is None
    [problem] = document.problems
    assert f"{problem.line}:{problem.column}" == place
    assert words in problem.message


def test_the_hint_for_an_unquoted_colon_shows_the_form_with_braces() -> None:
    [problem] = parse(b"unmapped: use: Other\n").problems

    assert (problem.line, problem.column) == (1, 14)
    assert "{use: Other}" in problem.suggestion


def test_bytes_that_are_not_utf8_are_refused_with_line_and_column() -> None:
    assert problems(b"a: 1\nname: M\xfcller\n") == ["2:8 this is not UTF-8 text."]


def test_a_byte_order_mark_does_not_move_the_columns() -> None:
    document = parse(b"\xef\xbb\xbfa: [1, 2]\n")

    assert document.root is not None
    assert document.locate(("a",), key=True) == (1, 1)
    assert document.locate(("a", 1)) == (1, 8)


def test_a_file_above_one_mebibyte_is_refused() -> None:
    assert "longer than the 1,048,576 bytes" in problems(b"a: 1 #" + b"x" * MAX_BYTES)[0]


def test_duplicate_keys_are_all_reported_and_the_first_one_counts() -> None:
    document = parse(b"a: 1\nb: {c: 1, c: 2}\na: 3\n")

    assert [(p.line, p.column, p.path) for p in document.problems] == [(2, 11, "b.c"), (3, 1, "a")]
    assert "line 1" in document.problems[1].suggestion
    assert document.root is not None
    assert document.root.get("a").value == 1  # type: ignore[union-attr]


def test_anchors_aliases_and_tags_are_refused_by_place() -> None:
    assert problems("a: &x [1]\nb: *x\nc: !!python/object:os.system ls\n") == [
        "1:4 a: anchors (&name) are not supported.",
        "2:4 b: aliases (*name) are not supported.",
        '3:4 c: YAML tags ("tag:yaml.org,2002:python/object:os.system") are not supported.',
    ]


def test_a_bomb_of_aliases_is_read_in_no_time() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 60)]
    started = time.process_time()

    document = parse("\n".join(lines).encode())

    assert len(document.problems) == 200
    assert time.process_time() - started < 2


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_bomb_of_brackets_is_refused_in_no_time(opening: str) -> None:
    started = time.process_time()

    document = parse((opening * 100_000).encode())

    assert document.root is None
    assert "levels deep" in document.problems[0].message
    assert time.process_time() - started < 5


def test_a_key_in_unquoted_braces_is_explained() -> None:
    found = parse(b"note: {{ person.city }}\n").problems

    assert found[0].line == 1
    assert "a key must be a word" in found[0].message
    assert "needs quotes" in found[0].suggestion


@pytest.mark.parametrize(
    ("written", "kind", "value"),
    [
        ("no", Kind.TEXT, "no"),
        ("yes", Kind.TEXT, "yes"),
        ("on", Kind.TEXT, "on"),
        ("02:30", Kind.TEXT, "02:30"),
        ("2026-01-01", Kind.TEXT, "2026-01-01"),
        ("1_000", Kind.TEXT, "1_000"),
        ("0x10", Kind.TEXT, "0x10"),
        ("true", Kind.BOOLEAN, True),
        ("False", Kind.BOOLEAN, False),
        ("42", Kind.INTEGER, 42),
        ("-7", Kind.INTEGER, -7),
        ("1.5", Kind.NUMBER, 1.5),
        ("1e3", Kind.NUMBER, 1000.0),
        ("~", Kind.NULL, None),
        ('"42"', Kind.TEXT, "42"),
        ("'~'", Kind.TEXT, "~"),
        ("9" * 30, Kind.NUMBER, 1e30),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(written: str, kind: Kind, value: object) -> None:
    root = parse(f"%YAML 1.1\n---\na: {written}\n".encode()).root

    assert root is not None
    node = root.get("a")
    assert node is not None
    assert (node.kind, node.value) == (kind, value)


def test_the_text_is_kept_byte_for_byte() -> None:
    text = b"# top\r\na:   1   # why\r\n\r\n\r\nb: [ x,y ]\r\n# end"

    assert parse(text).text == text


def test_places_are_found_by_path() -> None:
    document = parse(b"a:\n  b:\n    - x\n    - {c: 1, d: }\n  e: 5\n")

    assert document.locate(("a", "e")) == (5, 6)
    assert document.locate(("a", "e"), key=True) == (5, 3)
    assert document.locate(("a", "b")) == (2, 3)
    assert document.locate(("a", "b", 1, "c")) == (4, 11)
    assert document.locate(("a", "b", 1, "d")) == (4, 14)
    assert document.locate(("a", "nothing", "there")) == (1, 1)


def test_a_long_text_in_quotes_is_not_blamed_for_a_mistake_behind_it() -> None:
    [problem] = parse(b'a: "x\n  y"\nb: c: d\n').problems

    assert (problem.line, "colon" in problem.message) == (3, True)
