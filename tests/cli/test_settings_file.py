""".env and --env-file as people leave them: a mistake is one sentence with file and line, never a fault of ours."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Desk

pytestmark = pytest.mark.parametrize("crm", ["hubspot"])


def test_lines_that_are_no_settings_are_named_once_each(desk: Desk) -> None:
    (desk.folder / ".env").write_text("# ours\nCRM_SYNC_PUBLIC_URL=x\nnonsense here\nexport A=1\n= 3\n")

    said = desk.run("runs")

    assert said.code == 2
    assert said.err == (
        "crm-sync: .env, line 3: no NAME=value; mend it, or begin it with #\n"
        ".env, line 5: no NAME=value; mend it, or begin it with #\n"
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"A=caf\xe9\n", ".env is not UTF-8 text; save it with that encoding"), (None, ".env is a folder")],
)
def test_a_file_that_cannot_be_read_is_named(desk: Desk, content: bytes | None, sentence: str) -> None:
    if content is None:
        (desk.folder / ".env").mkdir()
    else:
        (desk.folder / ".env").write_bytes(content)

    said = desk.run("runs")

    assert said.code == 2
    assert said.err.startswith(f"crm-sync: {sentence}")
    assert said.err.count("\n") == 1


def test_a_file_the_system_does_not_hand_over_is_named_with_its_reason(desk: Desk) -> None:
    said = desk.run("--env-file", "/proc/self/mem", "runs")

    assert said.code == 2
    assert said.err.startswith("crm-sync: /proc/self/mem cannot be read (")


def test_doctor_tells_the_same_and_goes_on(desk: Desk) -> None:
    (desk.folder / ".env").write_text("nonsense here\n")

    said = desk.run("doctor")

    assert said.code == 1
    assert "FAIL settings: .env, line 1: no NAME=value" in said.text
    assert "clock: " in said.text


def test_a_byte_order_mark_does_not_hide_the_first_setting(desk: Desk) -> None:
    (desk.folder / ".env").write_bytes(b"\xef\xbb\xbfCRM_SYNC_DATABASE_URL=sqlite:///other.db\n")

    assert desk.run("runs").code == 0
    assert (desk.folder / "other.db").exists()
