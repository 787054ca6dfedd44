"""Whatever is in the file, loading it ends in problems with places, never in an exception."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from crm_sync.config.check import check
from crm_sync.config.loader import Loaded, load
from crm_sync.config.problems import Severity
from crm_sync.config.starter import starter

from .fields import ACCOUNT, CONTACT, CONTACTS, LEAD, MemoryCrm

EXAMPLE = (Path(__file__).parent / "product_example.yaml").read_text()
STARTER = starter("salesforce", "salesforce", {"Contact": CONTACT, "Lead": LEAD, "Account": ACCOUNT})
SCRAPS = (
    *(
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\t",
        "\n",
        "#",
        "&a ",
        "*a",
        "!!x ",
        "'",
        '"',
        "|",
        ">",
        "null",
        "~",
        "yes",
        "0",
    ),
    *("-1", "1e9", "..", "%", "\u00e9", "\u2028", "\x85", "\x00", "\ufeff", "{}", "[]", "<<: ", "? ", "---\n"),
    *("%YAML 1.1\n", "track", "person.title", "{{ ", " }}", "builtin:", "use: ", "12" * 20, "\\U00110000"),
    *("2026-13-45", "a" * 3000),
)


def mutate(text: str, seed: int, times: int) -> str:
    """Edits as a person or a merge makes them: cut, double, swap, insert; by characters and by lines."""
    rng = random.Random(seed)
    for _ in range(times):
        lines = text.split("\n")
        at = rng.randrange(len(text) + 1)
        match rng.randrange(6):
            case 0:
                text = text[:at] + text[at + rng.randrange(1, 12) :]
            case 1:
                text = text[:at] + rng.choice(SCRAPS) + text[at:]
            case 2:
                line = rng.randrange(len(lines))
                lines[line] = lines[rng.randrange(len(lines))]
                text = "\n".join(lines)
            case 3:
                del lines[rng.randrange(len(lines))]
                text = "\n".join(lines)
            case 4:
                line = rng.randrange(len(lines))
                lines[line] = " " * rng.randrange(5) + lines[line].lstrip()
                text = "\n".join(lines)
            case _:
                line = rng.randrange(len(lines))
                name, colon, _ = lines[line].partition(":")
                lines[line] = f"{name}{colon} {rng.choice(SCRAPS)}"
                text = "\n".join(lines)
    return text


def well_formed(result: Loaded, text: bytes) -> None:
    lines = text.count(b"\n") + 1
    assert result.document.text == text
    assert (result.config is None) == any(p.severity is Severity.ERROR for p in result.problems)
    for problem in result.problems:
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.message
        assert "\n" not in str(problem)
    assert [p.line for p in result.problems] == sorted(p.line for p in result.problems)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from([EXAMPLE, STARTER]), st.integers(0, 2**32), st.integers(1, 6))
def test_a_damaged_configuration_ends_in_problems(original: str, seed: int, times: int) -> None:
    text = mutate(original, seed, times).encode()

    result = load(text, read_file=lambda _: b"apollo,crm\nbanking,Banking\n")

    well_formed(result, text)
    if result.config is not None:
        for problem in check(result.config, {"salesforce": MemoryCrm(CONTACT, ACCOUNT, LEAD, CONTACTS)}):
            assert problem.line >= 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff\xfea\x00")
@example(b'a: "\\U00110000"')
@example(b"%YAML 99.99\n---\na: 1")
@example(b"%TAG ! x\n%TAG ! y\n--- !z\na")
@example(b"- - - ? - :")
@example(b"a: |99\n x")
def test_any_bytes_end_in_problems(text: bytes) -> None:
    well_formed(load(text), text)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
@example(b'apollo,crm\n"')
@example(b"apollo,crm\n\x00,x")
@example(b'apollo;crm\n"a\nb";c')
def test_any_picklist_file_ends_in_problems(content: bytes) -> None:
    text = STARTER.replace('"builtin:salesforce_industry"', "map.csv").encode()

    result = load(text, read_file=lambda _: content)

    for problem in result.problems:
        assert problem.line >= 1
        assert problem.message
