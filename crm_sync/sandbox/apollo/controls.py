"""The /_sandbox controls that only Apollo has: what becomes of callbacks, and the time that reveals take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from flask import Flask, Response, request

from crm_sync.sandbox.apollo.callbacks import Callbacks
from crm_sync.sandbox.apollo.phones import Reveals
from crm_sync.sandbox.faults import check_number, listed_words

_SETTINGS = {"reveal_delay_s", "age_days"}


def add_controls(app: Flask, callbacks: Callbacks, reveals: Reveals) -> None:
    """GET, POST and DELETE /_sandbox/callbacks: the script in force. POST /_sandbox/phones: `reveal_delay_s` of the
    orders to come, and `age_days`, by which all orders so far become older."""

    @app.get("/_sandbox/callbacks")
    def listed_callbacks() -> Response:
        return _json(callbacks.listed())

    @app.post("/_sandbox/callbacks")
    def script_callbacks() -> Response:
        try:
            callbacks.add(request.get_json(force=True, silent=True))
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(callbacks.listed())

    @app.delete("/_sandbox/callbacks")
    def forget_callbacks() -> Response:
        callbacks.clear()
        return _json([])

    @app.post("/_sandbox/phones")
    def set_phones() -> Response:
        try:
            _set(reveals, request.get_json(force=True, silent=True))
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(reveals.state())


def _set(reveals: Reveals, asked: Any) -> None:
    if not isinstance(asked, Mapping) or not asked or set(asked) - _SETTINGS:
        raise ValueError(f"send a JSON object with some of {listed_words(_SETTINGS)}")
    for name, value in asked.items():
        check_number(name, value, 0, whole=False)
    if "reveal_delay_s" in asked:
        reveals.delay_s = asked["reveal_delay_s"]
    if "age_days" in asked:
        reveals.age(asked["age_days"])


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, mimetype="application/json")
