"""A list of people to leave alone: nobody on it may be overlooked, and nobody beside it is meant."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_sync.mapping.suppress_lists import Listed, UnreadableListError, read_list

CRMS = {"salesforce": "salesforce", "hubspot": "hubspot"}


def read(text: str) -> Listed:
    return read_list(text.encode(), CRMS)


def test_one_value_to_a_line_is_recognised_by_its_looks() -> None:
    listed = read(
        "# from legal, 2026-11\n\nada@x.example\nacme.example\n+44 20 7123 4567\nlinkedin.com/in/ada\n"
        "003000000000001\nhubspot:contacts:5\nwho is this\n"
    )

    assert listed.identities == {
        "email:ada@x.example",
        "domain:acme.example",
        "phone:+442071234567",
        "linkedin:in/ada",
        "record:salesforce:Contact:003000000000001AAA",
        "record:hubspot:contacts:5",
    }
    assert listed.unknown == [9]
    assert listed.by_kind() == {"email": 1, "domain": 1, "linkedin": 1, "record": 2, "phone": 1}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_told_by_their_names_and_others_are_not_looked_at(separator: str) -> None:
    rows = [
        ["Contact ID", "E-Mail", "Notes", "Email Opt Out", "LinkedIn URL"],
        ["17", "ada@x.example", "see other@y.example", "true", ""],
        ["", "", "nothing", "true", "https://www.linkedin.com/in/bob/"],
        ["", "", "third@y.example", "", ""],
    ]

    listed = read("\n".join(separator.join(row) for row in rows))

    assert listed.identities == {"record:hubspot:contacts:17", "email:ada@x.example", "linkedin:in/bob"}
    assert listed.unknown == [4]


def test_the_domain_beside_a_person_does_not_stand_for_all_their_colleagues() -> None:
    assert read("email,company domain\nada@x.example,acme.example\n,other.example\n").identities == {
        "email:ada@x.example",
        "domain:other.example",
    }
    assert read("ada@x.example, acme.example\n").identities == {"email:ada@x.example"}


def test_several_addresses_in_one_cell_all_count() -> None:
    assert read('email\n"a@x.example; b@x.example"\n').identities == {"email:a@x.example", "email:b@x.example"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_spreadsheets_save_is_read(encoding: str) -> None:
    content = "email\r\nböse@bücher.example\r\n".encode(encoding)

    assert read_list(content, CRMS).identities == {"email:böse@bücher.example"}


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("email\nböse@x.example\n".encode("latin-1"), 2, "not UTF-8"),
        (b"email\n\x00\x01\x02", 2, "not a text file"),
        (b'email\n"a@x.example\nb@x.example\n', 2, "quotation marks"),
        (b'email\na@x.example\n"b"x@x.example\n', 3, "quotation marks"),
        (b"email\n" + b"x" * 200_000, 2, "endless"),
    ],
)
def test_a_file_that_cannot_be_read_whole_is_refused_whole(content: bytes, line: int, words: str) -> None:
    with pytest.raises(UnreadableListError, match=words) as refused:
        read_list(content, CRMS)

    assert refused.value.line == line
    assert "@" not in str(refused.value)


def test_only_the_first_unknown_lines_are_named() -> None:
    listed = read("email\n" + "nobody\n" * 1_000)

    assert len(listed.unknown) == 20
    assert listed.unknown_count == 1_000


def test_two_hundred_thousand_lines_take_seconds() -> None:
    content = "\n".join(["email", *(f"person{n}@company{n % 5_000}.example" for n in range(200_000))]).encode()

    begun = time.process_time()
    listed = read_list(content, CRMS)

    assert len(listed.identities) == 200_000
    assert time.process_time() - begun < 10


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        listed = read_list(content, CRMS)
    except UnreadableListError:
        return

    assert listed.unknown_count <= listed.lines
