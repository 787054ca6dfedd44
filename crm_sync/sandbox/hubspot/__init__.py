"""A HubSpot account over loopback HTTP: tokens, properties, search, list, batch read, batch update, limits.

It stands on contracts/hubspot.md (2026-11) and conforms to contracts/hubspot.openapi.json; where the service is known
to be forgiving (numbers instead of text, unknown keys, a top-level `filters`) it is stricter. Where the pages leave its
behaviour open, `Habits` says which one is played. Not simulated, and refused by name: creating, deleting and upserting
by API, the search's full-text `query`, associations other than from contacts to companies, versions other than v3.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from flask import Flask

from crm_sync.sandbox.hubspot.app import Shuffler, build
from crm_sync.sandbox.hubspot.auth import SCOPES, TOKEN, OAuthApp, Tokens
from crm_sync.sandbox.hubspot.batches import Batches, Habits
from crm_sync.sandbox.hubspot.limits import Limits
from crm_sync.sandbox.hubspot.portal import PORTAL_ID, Portal
from crm_sync.sandbox.hubspot.simulator import Simulator
from crm_sync.sandbox.overlay import Overlay
from crm_sync.sandbox.world import World

__all__ = ["CLIENT", "PORTAL_ID", "SCOPES", "TOKEN", "Habits", "OAuthApp", "Simulator", "create"]

#: Client id, client secret and refresh token of the OAuth app that is installed by default.
CLIENT = (OAuthApp.client_id, OAuthApp.client_secret, OAuthApp.refresh_token)

_VARIANTS = {
    "a": Habits(),
    "b": Habits(vanished="error", merged="vanish", hidden_options=False, repeats=True, history="oldest"),
}


def create(
    world: World,
    *,
    token: str = TOKEN,
    scopes: Collection[str] = SCOPES,
    more_tokens: Mapping[str, Collection[str]] | None = None,
    oauth: OAuthApp | None = None,
    token_seconds: float = 1800,
    variant: str = "a",
    trace_ids: bool = True,
    habits: Habits | None = None,
    burst: int | None = 190,
    daily: int | None = 625_000,
    used_today: int = 0,
    searches_per_s: int | None = 5,
    lag_s: float = 5.0,
    misorder_every: int | None = None,
    time_zone: str = "US/Eastern",
    now: Callable[[], float] = time.time,
) -> Flask:
    """Return the account as a Flask application; `app.extensions["simulator"]` is its Simulator.

    `token` (a service key) may do what `scopes` say, and so may the installed `oauth` app; `more_tokens` are further
    keys with their scopes, each of its own app. `token_seconds`: how long an OAuth access token lives. What the
    contract pages leave open is played as `variant` ("a" or "b") and `trace_ids` say, or as `habits` say in full.
    `burst`: an app's calls in any ten seconds (an OAuth app has at most 110); `daily`: the account's calls of a day,
    which ends at midnight in `time_zone`, of which `used_today` are gone; `searches_per_s`: for all apps together; None
    is no limit. `lag_s`: how long a search still sees a record as it was before a write. `misorder_every`: each so
    manieth search comes out of order.
    """
    if habits is None:
        if variant not in _VARIANTS:
            raise ValueError(f'a variant is "a" or "b", not {variant!r}')
        habits = replace(_VARIANTS[variant], trace_ids=trace_ids)
    overlay = Overlay()
    portal = Portal(world, overlay=overlay, lag_s=lag_s, now=now, oldest_first=habits.history == "oldest")
    tokens = Tokens(
        {token: scopes, **(more_tokens or {})},
        oauth or OAuthApp(scopes=tuple(scopes)),
        token_seconds=token_seconds,
        now=now,
    )
    limits = Limits(
        burst=burst,
        daily=daily,
        used_today=used_today,
        searches_per_s=searches_per_s,
        time_zone=time_zone,
        now=now,
    )
    app = build(portal, tokens, limits, Batches(portal, habits), Shuffler(misorder_every), time_zone)
    # The overlay's file goes with the application, at the latest with the process.
    weakref.finalize(app, overlay.close)
    app.extensions["simulator"] = Simulator(portal=portal, tokens=tokens, limits=limits)
    return app
