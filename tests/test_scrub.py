"""What others wrote is cleaned before anybody is told it."""

from __future__ import annotations

import pytest

from crm_sync.scrub import scrubbed


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("no such user ada@lovelace.example.", "no such user (an address)."),
        ("<ada.byron+x@a-b.example.com>, and", "<(an address)>, and"),
        ("call +44 20 7946 0958 now", "call (a number) now"),
        ("+1 (415) 555-2671", "(a number)"),
        ("+4915112345678", "(a number)"),
        ("https://me:hunter2@crm.example/x", "https://…@crm.example/x"),
        ("api_key=abc123&x=1", "api_key=…&x=1"),
        ('{"access_token": "abc"}', '{"access_token": "…"}'),
        ("Authorization: Bearer abcdef", "Authorization: Bearer …"),
        ("bearer 00D5g000004XyZ1!AQEAQ", "bearer …"),
        ("X-Api-Key: abc", "X-Api-Key: …"),
        ("two\nlines\x1b[31m\r", "two\nlines [31m "),
        (f"/webhooks/apollo/v1_{'0' * 16}_{'a' * 32}_17", "/webhooks/apollo/…"),
    ],
)
def test_secrets_and_people_are_cut_out(text: str, clean: str) -> None:
    assert scrubbed(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Run 20261128-021500-7f3a failed at 2026-11-28 02:15 EST: Apollo answered 503",
        "CRM_SYNC_HUBSPOT_TOKEN holds it; check CRM_SYNC_APOLLO_API_KEY",
        "the token is taken, the secret key opens the stored answers",
        "12,345 of 67,890 records (+5.1%) at +02:00",
        "phones: 1 applied, 2 kept",
    ],
)
def test_what_an_admin_needs_is_left(text: str) -> None:
    assert scrubbed(text) == text
