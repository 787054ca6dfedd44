"""docs/configuration.md and the schema say the same."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from crm_sync.config.loader import kept, load
from crm_sync.config.schema import walk_keys
from crm_sync.config.text import parse
from crm_sync.mapping.picklists import BUILTIN_TABLES
from crm_sync.mapping.transforms import TRANSFORMS

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` (\|.*\|)$", re.MULTILINE)


def documented() -> dict[str, tuple[str, str, str]]:
    """Dotted pattern -> (takes, default, meaning)."""
    found: dict[str, tuple[str, str, str]] = {}
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        group = "" if title == "The file" else re.sub(r"<\w+>", "*", title.strip("`")) + "."
        for name, rest in ROW.findall(body):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", rest)[1:-1]]
            if len(cells) == 3:  # the write rules have a table of two columns
                found[group + name] = (cells[0], cells[1], cells[2])
    return found


def keys() -> dict[str, object]:
    """Every key with a fixed name. What stands below a name the admin chooses is one group of its own."""
    named = {".".join(pattern): key for pattern, key in walk_keys() if pattern[-1] != "*"}
    # A company's fields are written as a contact's are; {use: …} and {retry_up_to: …} are described with their key.
    inner = ("syncs.*.account.fields.", "syncs.*.fields.*.unmapped.", "budget.in_doubt.")
    return {pattern: key for pattern, key in named.items() if not pattern.startswith(inner)}


def test_every_key_is_documented_and_nothing_else() -> None:
    assert set(documented()) == set(keys())


def test_required_keys_and_defaults_are_documented_as_they_are() -> None:
    page = documented()
    for pattern, key in keys().items():
        default = page[pattern][1].strip()
        assert (default == "required") is key.required, pattern  # type: ignore[attr-defined]


def test_every_word_a_key_takes_is_documented() -> None:
    page = documented()
    for pattern, key in keys().items():
        for word in getattr(key.shape, "options", ()):  # type: ignore[attr-defined]
            assert f"`{word}`" in page[pattern][0] or "write rule" in page[pattern][0], (pattern, word)


def test_every_transform_and_every_ready_table_is_documented() -> None:
    for name in TRANSFORMS:
        assert f"`{name}`" in PAGE
    for name in BUILTIN_TABLES:
        assert f"`builtin:{name}`" in PAGE


EXAMPLES = [
    textwrap.dedent(block) for block in re.findall(r"\n\n((?: {4}.*\n)+)", PAGE) if "crm_sync.yaml:42" not in block
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_can_be_read(example: str) -> None:
    assert parse(example.encode()).problems == ()


def placed(example: str) -> str:
    """A whole configuration with the example where it belongs."""
    key = example.split(":", 1)[0]
    crms = {"salesforce": "{type: salesforce, environment: sandbox}", "hs": "{type: hubspot, environment: sandbox}"}
    sync = {
        "crm": "hs" if "lifecyclestage" in example else "salesforce",
        "object": "contacts" if "lifecyclestage" in example else "Contact",
        "match": "{send: {email: Email}}",
        "fields": "{Title: person.title}",
    }
    top = {"version": "1", "crms": "{" + ", ".join(f"{n}: {v}" for n, v in crms.items()) + "}"}
    indented = textwrap.indent(example.split(":", 1)[1].rstrip("\n"), "    ").lstrip(" ")
    nested = "\n" + indented.lstrip("\n") if "\n" in indented else indented
    if key in ("send", "trust_when"):
        sync["match"] = f"\n      {key}: {nested.replace(chr(10), chr(10) + '    ')}"
        if key == "trust_when":
            sync["match"] += "\n      send: {email: Email, last_name: LastName}"
    elif key in ("route", "do_not_call"):
        route = "" if key == "route" else ", route: {mobile: MobilePhone}"
        sync["phones"] = f"{{reveal_when: x, {key}: {nested}{route}}}"
    elif key in ("choose", "match", "fields", "account", "schedule", "phones", "job_change"):
        sync[key] = nested
    else:
        top[key] = example.split(":", 1)[1].rstrip("\n")
    lines = [f"{name}: {value}" for name, value in top.items()]
    return "\n".join([*lines, "syncs:", "  s:", *(f"    {name}: {value}" for name, value in sync.items())]) + "\n"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_configurations(example: str) -> None:
    text = placed(example)

    problems = load(text.encode(), read_file=kept({})).problems

    assert [str(p) for p in problems] == [], text
