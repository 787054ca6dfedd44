"""One installation in front of a small, untidy sandbox, driven by the command line inside this process."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crm_sync import bootstrap, cli
from crm_sync.bootstrap import App
from crm_sync.clock import SystemClock
from crm_sync.config.loader import load
from crm_sync.domain.runs import SyncRun
from crm_sync.sandbox.hubspot.portal import FIRST_ID
from crm_sync.sandbox.run import Sandbox
from crm_sync.sandbox.salesforce import ids as salesforce_ids
from crm_sync.store.runs import RunRecord
from tests.factories import SECRET_KEY

#: Among the 20 contacts are a namesake, an echo, two Apollo does not know, a former employer and a duplicate; one of
#: the 5 companies has another domain in the CRM, one Apollo does not know (see Office.twice_a_company).
SEED, CONTACTS = 910, 20
#: How long an answer may stay silent where silence is played, and how long it is played.
SHORT_READ_S, SILENCE_S = 0.15, 0.3
LONG_READ_S = 30.0

PEOPLE = {"salesforce": "contacts", "hubspot": "contacts"}
COMPANIES = {"salesforce": "accounts", "hubspot": "companies"}

_SALESFORCE = """
version: 1
apollo: {workers: 1}
crms:
  salesforce: {type: salesforce, environment: sandbox}
placeholders: ["[[unknown]]", "n/a", "-"]
syncs:
  contacts:
    crm: salesforce
    object: Contact
    choose: {after_no_match_wait: 7d}
    match:
      send:
        email: Email
        first_name: FirstName
        last_name: LastName
        domain: [Account.Website | domain, Email | domain]
    fields:
      Title: person.title
      LinkedIn__c: person.linkedin_url
      MailingCity: person.city
      MailingCountry: {from: person.country, write: replace}
    account:
      via: AccountId
      fields:
        BillingCity: organization.city
        LinkedIn__c: organization.linkedin_url
  accounts:
    crm: salesforce
    object: Account
    choose: {after_no_match_wait: 7d}
    match:
      send: {domain: Website | domain}
    fields:
      NumberOfEmployees: organization.estimated_num_employees
      BillingCity: organization.city
      LinkedIn__c: organization.linkedin_url
"""
_HUBSPOT = """
version: 1
apollo: {workers: 1}
crms:
  hubspot: {type: hubspot, environment: sandbox}
placeholders: ["[[unknown]]", "n/a", "-"]
syncs:
  contacts:
    crm: hubspot
    object: contacts
    choose: {missing_any: [jobtitle, city], after_no_match_wait: 7d}
    match:
      send:
        email: email
        first_name: firstname
        last_name: lastname
        domain: email | domain
    fields:
      jobtitle: person.title
      hs_linkedin_url: person.linkedin_url
      city: person.city
      country: {from: person.country, write: replace}
    account:
      via: associatedcompanyid
      fields:
        city: organization.city
        linkedin_company_page: organization.linkedin_url
  companies:
    crm: hubspot
    object: companies
    choose: {missing_any: [numberofemployees, city], after_no_match_wait: 7d}
    match:
      send: {domain: [domain | domain, website | domain]}
    fields:
      numberofemployees: organization.estimated_num_employees
      city: organization.city
      linkedin_company_page: organization.linkedin_url
"""
_CONFIG = {"salesforce": _SALESFORCE, "hubspot": _HUBSPOT}

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.\w+")
#: What changes with each write, whoever writes what.
_STAMPS = ("LastModifiedDate", "SystemModstamp", "LastModifiedById")

#: One record's edits: field -> value.
Edits = dict[str, Any]


class LeapingClock(SystemClock):
    """The machine's clock, which each sleep moves on: back-off and parking are real and take no time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def sleep(self, seconds: float) -> None:
        self.leap(timedelta(seconds=seconds))
        time.sleep(min(seconds, 0.002))

    def leap(self, span: timedelta) -> None:
        with self._lock:
            self._ahead += span


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended, and the run it left in the store (None: it left none)."""

    code: int
    output: str
    run: SyncRun | None
    records: tuple[RunRecord, ...]

    def ids(self, outcome: str) -> set[str]:
        assert self.run is not None
        return {r.record_id for r in self.records if r.outcome == outcome and r.object_type == self.run.object_type}


@dataclass(frozen=True, kw_only=True)
class World:
    """What both services hold: edits by object and record, credits by Apollo id."""

    touched: Mapping[str, Mapping[str, Edits]]
    charged: Mapping[str, int]


@dataclass(kw_only=True)
class Stage:
    """The sandbox that all cases share; it begins anew for each."""

    sandbox: Sandbox
    folder: Path
    templates: dict[str, Path] = field(default_factory=dict)
    opened: int = 0

    @classmethod
    @contextlib.contextmanager
    def set_up(cls, folder: Path) -> Iterator[Stage]:
        with Sandbox(contacts=CONTACTS, seed=SEED, unlimited=True, per_minute=None) as sandbox:
            yield cls(sandbox=sandbox, folder=folder)

    @contextlib.contextmanager
    def office(
        self, crm: str, *, database_url: str = "", read_s: Mapping[str, float] | None = None, **settings: str
    ) -> Iterator[Office]:
        """A fresh world, and an installation whose configuration is applied."""
        self.sandbox.renew("apollo", crm)
        self.opened += 1
        if self.opened % 50 == 0:
            gc.collect()  # a Flask application is full of cycles, and there are two of them to each case
        with pytest.MonkeyPatch.context() as patch:
            file = self.folder / "crm_sync.db"
            database = {"CRM_SYNC_DATABASE_URL": database_url or f"sqlite:///{file}"}
            if database_url:
                database["CRM_SYNC_SECRET_KEY"] = SECRET_KEY
            for name, value in (self.sandbox.settings() | settings | database).items():
                patch.setenv(name, value)
            patch.chdir(self.folder)  # no .env of anybody's
            if not database_url:
                if crm not in self.templates:
                    self.templates[crm] = self._template(crm, patch)
                for old in self.folder.glob("crm_sync.db*"):
                    old.unlink()
                shutil.copy(self.templates[crm], file)
            office = Office(stage=self, crm=crm, clock=LeapingClock(), read_s=dict(read_s or {}), patch=patch)
            if database_url:
                _configure(App(), crm)
            office.twice_a_company()
            office.begun = office.world()
            try:
                yield office
            finally:
                office.books.close()

    def _template(self, crm: str, patch: pytest.MonkeyPatch) -> Path:
        """Migrating and configuring a database costs more than a walk does."""
        file = self.folder / f"{crm}.db"
        with patch.context() as inner:
            inner.setenv("CRM_SYNC_DATABASE_URL", f"sqlite:///{file}")
            _configure(App(), crm)
        return file


def _configure(app: App, crm: str) -> None:
    config = load(_CONFIG[crm].encode()).require()
    app.versions.add(config.text, config.files, author="test", note="", now=app.clock.now())
    app.close()


def twice_a_company(sandbox: Sandbox, crm: str) -> None:
    """One company stands in the CRM under both its domains: Apollo's bulk answer gives it once and counts nobody as
    missing, so that the walk has to ask for the other singly."""
    world = sandbox.world
    companies = [world.company(index) for index in range(world.accounts)]
    other = next(c for c in companies if c.alias_domain)
    unknown = next(c.index for c in companies if not c.known)
    website = f"https://{other.domain}"
    simulator = sandbox.apps[crm].extensions["simulator"]
    if crm == "salesforce":
        simulator.edit("Account", salesforce_ids.encode("001", unknown), {"Website": website})
    else:
        record_id = str(FIRST_ID["companies"] + unknown)
        simulator.edit("companies", record_id, {"domain": "", "website": website})


@dataclass(kw_only=True)
class Office:
    """`read_s`: the read time-out by provider, where it is not the usual one."""

    stage: Stage
    crm: str
    clock: LeapingClock
    read_s: dict[str, float]
    patch: pytest.MonkeyPatch
    begun: World = World(touched={}, charged={})

    def __post_init__(self) -> None:
        office = self

        class HastyApp(App):
            """What the command line makes, with this office's clock and time-outs."""

            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.__dict__["clock"] = office.clock

            def crm(self, name: str, crm_type: str) -> Any:
                client: Any = super().crm(name, crm_type)
                client._session._timeout = (5.0, office.read_s.get(name, LONG_READ_S))
                return client

            @property
            def enricher(self) -> Any:
                client: Any = App.enricher.__get__(self)
                client._session._timeout = (5.0, office.read_s.get("apollo", LONG_READ_S))
                return client

        self.patch.setattr(bootstrap, "App", HastyApp)
        hubspot_s = (5.0, self.read_s.get("hubspot", LONG_READ_S))
        self.patch.setattr("adapters.hubspot.client.TIMEOUT_S", hubspot_s)
        self._watch_writes()
        #: The installation's database, as somebody else sees it.
        self.books = App()

    def configure(self, **options: str) -> None:
        """The configuration with other words in the place of some: `write` of the CRM."""
        text = _CONFIG[self.crm].replace("environment: sandbox}", f"environment: sandbox, write: {options['write']}}}")
        config = load(text.encode()).require()
        self.books.versions.add(config.text, config.files, author="test", note="", now=self.clock.now())

    def twice_a_company(self) -> None:
        twice_a_company(self.stage.sandbox, self.crm)

    # --- commands -------------------------------------------------------------------------------------------------

    def command(self, *words: str) -> tuple[int, str]:
        """A command as the console script runs it: (exit code, all it printed)."""
        said = io.StringIO()
        self.patch.setattr(sys, "argv", ["crm-sync", *words])
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                cli.main()
            except SystemExit as end:
                return _code(end), said.getvalue()
        return 0, said.getvalue()

    def run(self, sync: str) -> Ended:
        return self.ended("run", sync)

    def ended(self, *words: str) -> Ended:
        """A command that makes one run, or none."""
        known = {run.id for run in self.books.runs.latest()}
        code, output = self.command(*words)
        new = [run for run in self.books.runs.latest() if run.id not in known]
        assert len(new) <= 1
        return Ended(
            code=code,
            output=output,
            run=new[0] if new else None,
            records=tuple(self.books.runs.records(new[0].id)) if new else (),
        )

    def looked_at_again(self, ended: Ended) -> Ended:
        """The same run as the store has it now."""
        assert ended.run is not None
        run = self.books.runs.get(ended.run.id)
        return replace(ended, run=run, records=tuple(self.books.runs.records(ended.run.id)))

    # --- the services -----------------------------------------------------------------------------------------------

    def spoil(self, provider: str, call: str, what: str, **more: Any) -> None:
        self.stage.sandbox.faults[provider].add([{"call": call, "what": what, "seconds": SILENCE_S, **more}])

    def fired(self, provider: str) -> int:
        return sum(fault["fired"] for fault in self.stage.sandbox.faults[provider].listed())

    def heal(self) -> None:
        for faults in self.stage.sandbox.faults.values():
            faults.clear()

    def calls(self) -> tuple[tuple[str, str], ...]:
        """(provider, "METHOD path-template") of each call so far, once and in order of its name."""
        names = ("apollo", self.crm)
        return tuple(sorted((name, call) for name in names for call in self.stage.sandbox.traffic[name].calls()))

    def world(self) -> World:
        state = self.stage.sandbox.apps[self.crm].extensions["simulator"].state()
        return World(
            touched={
                name: {key: {f: v for f, v in edits.items() if f not in _STAMPS} for key, edits in records.items()}
                for name, records in state["touched"].items()
            },
            charged=dict(self.stage.sandbox.apps["apollo"].extensions["ledger"].charged),
        )

    def _watch_writes(self) -> None:
        """Keep every value that ever reached a record, also those a later write covered."""
        self.written: Counter[tuple[str, int, str, str]] = Counter()
        simulator = self.stage.sandbox.apps[self.crm].extensions["simulator"]
        if self.crm == "salesforce":
            self._watch(simulator._org, "")
        else:
            for table in simulator._portal.tables.values():
                self._watch(table, table.name)

    def _watch(self, holder: Any, table: str) -> None:
        write = holder.write

        def watched(*arguments: Any, **named: Any) -> Any:
            *before, changes = arguments
            changes = list(changes)
            name = before[0] if before else table
            for index, values in changes:
                self.written.update((name, index, field, repr(value)) for field, value in values.items())
            return write(*before, changes, **named)

        holder.write = watched

    def secrets(self) -> list[str]:
        """What may stand nowhere: every credential of the settings, and the token of the moment."""
        names = ("API_KEY", "SECRET", "SECRET_KEY", "TOKEN")
        return [
            value
            for name, value in os.environ.items()
            if value and name.startswith("CRM_SYNC_") and name.endswith(names)
        ]


def _code(end: SystemExit) -> int:
    return end.code if isinstance(end.code, int) else int(bool(end.code))


def leaks(output: str, secrets: list[str]) -> list[str]:
    """What of `output` should not be there: traces, secrets, addresses."""
    found = [word for word in ("Traceback", "fault of ours", *secrets) if word in output]
    return found + _ADDRESS.findall(output) + re.findall(r"Bearer \S+", output)
