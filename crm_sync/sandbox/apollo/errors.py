"""Answers of Apollo's that are no 200 (contracts/apollo.md 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake
    """An answer that is no 200. `text`: sent as text/plain."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None, *, text: bool = False) -> None:
        super().__init__(status)
        self.status, self.body, self.headers, self.text = status, body, dict(headers or {}), text


def failed(code: str, message: str) -> dict[str, str]:
    return {"status": "failed", "error_code": code, "error_message": message}
