"""`python -m webhooks.openapi TOKEN`: the receiver's OpenAPI document with a token of this installation as its example.

`-` reads the token from standard input, where a shell's history is a concern.
"""

from __future__ import annotations

import sys
from importlib.resources import files

_SLOT = "{token}"


def document(token: str) -> str:
    """The document as YAML; `token` stands where its examples are."""
    text = (files("webhooks") / "openapi.yaml").read_text(encoding="utf-8")
    return text.replace(f'example: "{_SLOT}"', f'example: "{token}"')


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python -m webhooks.openapi TOKEN, or - to read it from standard input")
    token = sys.stdin.readline().strip() if arguments[0] == "-" else arguments[0]
    sys.stdout.write(document(token))


if __name__ == "__main__":
    main(sys.argv[1:])
