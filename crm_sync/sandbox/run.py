"""The whole sandbox: Apollo, Salesforce and HubSpot on three loopback ports, over one world."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from flask import Flask

from crm_sync.sandbox import apollo, wordings
from crm_sync.sandbox.edits import Edits
from crm_sync.sandbox.faults import Faults, Wording
from crm_sync.sandbox.server import Server, Traffic, control
from crm_sync.sandbox.world import World


class Sandbox:
    """Started by `start()` or as a context manager; `settings()` is what points crm-sync at it.

    `per_minute`: Apollo's limit, None unlimited. `latency_ms`: how long Apollo takes, a number or (least, most).
    `unlimited`: HubSpot without search and burst limits and without index lag, for measuring ourselves.
    `variant`: which of two behaviours to play where the contract pages leave it open. `tidy`: everybody is known,
    distinct and matchable. `apollo_options` and the like are further options of the simulators' `create`.
    """

    def __init__(
        self,
        *,
        contacts: int = 50,
        seed: int = 7,
        variant: str = "a",
        tidy: bool = False,
        per_minute: int | None = 1000,
        latency_ms: float | tuple[float, float] = 0,
        unlimited: bool = False,
        ports: tuple[int, int, int] = (0, 0, 0),
        apollo_options: dict[str, Any] | None = None,
        salesforce_options: dict[str, Any] | None = None,
        hubspot_options: dict[str, Any] | None = None,
    ) -> None:
        free = {"burst": None, "daily": None, "searches_per_s": None, "lag_s": 0.0} if unlimited else {}
        self._options = {
            "apollo": {"per_minute": per_minute, "variant": variant, **(apollo_options or {})},
            "salesforce": salesforce_options or {},
            "hubspot": {"variant": variant, **free, **(hubspot_options or {})},
        }
        self._slow = _latency(latency_ms)
        self.world = World(seed, contacts, tidy=tidy)
        self.apps: dict[str, Flask] = {}
        self.faults: dict[str, Faults] = {}
        self.edits: dict[str, Edits] = {}
        self.traffic: dict[str, Traffic] = {}
        for name in self._options:
            self._make(name)
        self.servers = {name: Server(app, port) for (name, app), port in zip(self.apps.items(), ports, strict=True)}

    def renew(self, *names: str) -> None:
        """Begin again on the same addresses, with all of them or those named: nothing written, charged, counted or
        scripted."""
        for name in names or tuple(self.apps):
            old = self.apps[name].extensions["simulator"]
            self._make(name)
            self.servers[name].serve(self.apps[name])
            if hasattr(old, "close"):
                old.close()

    def _make(self, name: str) -> None:
        from crm_sync.sandbox import hubspot, salesforce

        services: dict[str, tuple[Callable[..., Flask], Wording]] = {
            "apollo": (apollo.create, wordings.apollo),
            "salesforce": (salesforce.create, wordings.salesforce),
            "hubspot": (hubspot.create, wordings.hubspot),
        }
        create, said = services[name]
        app = self.apps[name] = create(self.world, **self._options[name])
        faults = self.faults[name] = Faults(said)
        simulator = app.extensions["simulator"]
        edits = self.edits[name] = Edits(simulator.edit)
        latency_s = self._slow if name == "apollo" else None
        self.traffic[name] = control(app, simulator, faults, edits=edits, latency_s=latency_s)

    def start(self) -> Sandbox:
        for server in self.servers.values():
            server.start()
        return self

    def stop(self) -> None:
        # Together: each waits until its threads have noticed.
        with ThreadPoolExecutor(len(self.servers)) as stopping:
            list(stopping.map(Server.stop, self.servers.values()))

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def apollo_url(self) -> str:
        return self.servers["apollo"].url

    @property
    def salesforce_url(self) -> str:
        return self.servers["salesforce"].url

    @property
    def hubspot_url(self) -> str:
        return self.servers["hubspot"].url

    def settings(self) -> dict[str, str]:
        """The CRM_SYNC_ variables that point at this sandbox; its keys are no secrets."""
        from crm_sync.sandbox import hubspot, salesforce

        credentials = salesforce.Credentials()
        return {
            "CRM_SYNC_APOLLO_URL": f"{self.apollo_url}/api/v1",
            "CRM_SYNC_APOLLO_API_KEY": apollo.API_KEY,
            "CRM_SYNC_SALESFORCE_URL": self.salesforce_url,
            "CRM_SYNC_SALESFORCE_AUTH": "client_credentials",
            "CRM_SYNC_SALESFORCE_CONSUMER_KEY": credentials.consumer_key,
            "CRM_SYNC_SALESFORCE_CONSUMER_SECRET": credentials.consumer_secret,
            "CRM_SYNC_HUBSPOT_URL": self.hubspot_url,
            "CRM_SYNC_HUBSPOT_TOKEN": hubspot.TOKEN,
        }


def _latency(latency_ms: float | tuple[float, float]) -> Any:
    if isinstance(latency_ms, tuple):
        chance = random.Random(7)
        return lambda: chance.uniform(*latency_ms) / 1000
    return (lambda: latency_ms / 1000) if latency_ms else None
