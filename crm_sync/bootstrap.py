"""The only module that knows every concrete class."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crm_sync import __version__
from crm_sync.clock import SystemClock
from crm_sync.errors import ConfigError, CrmSyncError, StoreError
from crm_sync.settings import (
    NOTIFY_PREFIX,
    PREFIX,
    CrmSettings,
    HubSpotSettings,
    SalesforceSettings,
    Settings,
    crm_prefix,
    load_crm_settings,
    load_notify_settings,
    load_settings,
    values_of,
)

if TYPE_CHECKING:
    from flask import Flask

    from crm_sync.alerts import Notifiers
    from crm_sync.config.loader import Loaded
    from crm_sync.config.model import Config
    from crm_sync.domain.processes import Process
    from crm_sync.domain.runs import SyncRun
    from crm_sync.pipeline.public_address import PublicAddress
    from crm_sync.ports import Clock, Crm, Enricher, Window
    from crm_sync.presence import Presence
    from crm_sync.services import Services
    from crm_sync.store.alerts import Alerts
    from crm_sync.store.answers import Answers
    from crm_sync.store.config_versions import ConfigVersions
    from crm_sync.store.deliveries import Deliveries
    from crm_sync.store.engine import Store
    from crm_sync.store.erasures import Erasures
    from crm_sync.store.health import Health
    from crm_sync.store.hook_tokens import HookTokens
    from crm_sync.store.instance import Instance
    from crm_sync.store.journal import Journal
    from crm_sync.store.ledger import Ledger
    from crm_sync.store.pace import StorePace
    from crm_sync.store.privacy import Privacy
    from crm_sync.store.processes import Processes
    from crm_sync.store.provenance import Provenance
    from crm_sync.store.retention import Retention
    from crm_sync.store.reveals import Reveals
    from crm_sync.store.reviews import Reviews
    from crm_sync.store.run_queue import RunQueue
    from crm_sync.store.runs import Runs
    from crm_sync.store.schedules import Schedules
    from crm_sync.store.shares import Shares
    from crm_sync.store.suppressions import Suppressions
    from crm_sync.store.vault import Master, Vault
    from crm_sync.store.write_jobs import WriteJobs
    from crm_sync.watch import Watch, Watched
    from crm_sync.workers import Hints


#: How long what is under way may take to its end when the process is told to stop: one paid call at its longest, and
#: the writing of what it brought (design/reliability.md 2.2, M13). Whoever stops us waits a little longer.
DRAIN_S = 70.0
#: How long a web process may take to say that it has ended.
_LEAVE_S = 2.0
#: How often a process looks whether somebody has migrated the database under it.
_LOOK_AT_SCHEMA_S = 5.0
#: Beside a CRM's own settings, those that must be the same in all processes that carry work out.
_ALIKE = tuple(
    f"{PREFIX}{name}" for name in ("PUBLIC_URL", "APOLLO_URL", "APOLLO_API_KEY", "BROKER_URL", "SLACK_URL", "MAIL_URL")
)


@dataclass
class App:
    """One installation, opened piece by piece: a command pays only for what it touches."""

    env_file: Path | None = None
    config_file: Path = Path("crm_sync.yaml")

    def __post_init__(self) -> None:
        self._crms: dict[str, Crm] = {}
        self._scraped: tuple[Config, int] | None = None
        self._looked_at_schema = time.monotonic()
        self._agree: tuple[int | None, dict[str, str]] | None = None

    def sibling(self) -> App:
        """The same installation, opened once more: nothing is shared with this one but the database."""
        return App(env_file=self.env_file, config_file=self.config_file)

    # --- settings -----------------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.env_file)

    def crm_settings(self, name: str, crm_type: str) -> CrmSettings:
        return load_crm_settings(name, crm_type, self.env_file)

    def missing_settings(self, crms: Iterable[tuple[str, str]], *, apollo: bool = True) -> list[str]:
        """Sentences, one for each setting that is needed for these (name, type) CRMs and is missing or wrong."""
        from adapters.http import check_url

        problems: list[str] = []
        addresses: list[tuple[str, str]] = []
        if apollo:
            try:
                addresses.append((f"{PREFIX}APOLLO_URL", self.settings.apollo_url))
                if not self.settings.apollo_api_key.get_secret_value():
                    problems.append(
                        f"{PREFIX}APOLLO_API_KEY is not set: the key from Apollo's Settings > Integrations > API"
                    )
            except ConfigError as error:
                problems += str(error).splitlines()
        for name, crm_type in crms:
            try:
                group = self.crm_settings(name, crm_type)
            except ConfigError as error:
                problems += str(error).splitlines()
                continue
            problems += [f"{crm_prefix(name)}{field.upper()} is not set" for field in group.missing()]
            if group.url:
                addresses.append((f"{crm_prefix(name)}URL", group.url))
        for setting, url in addresses:
            try:
                check_url(url, setting)
            except ConfigError as error:
                problems.append(str(error))
        return list(dict.fromkeys(problems))

    def require_settings(self, crms: Iterable[tuple[str, str]], *, apollo: bool = True) -> None:
        """
        Raises:
            ConfigError: naming every setting that is missing or wrong, all at once.
        """
        problems = self.missing_settings(crms, apollo=apollo)
        if problems:
            where = f"in the environment or in {self.env_file}" if self.env_file else "in the environment or in .env"
            raise ConfigError("\n".join([*problems, f"Set them {where}; settings.example.env explains each."]))

    # --- store and configuration --------------------------------------------------------------------------------

    @cached_property
    def clock(self) -> Clock:
        return SystemClock()

    @cached_property
    def store(self) -> Store:
        """The database, with the schema this version knows."""
        store = self.unchecked_store
        store.ready()
        return store

    @cached_property
    def unchecked_store(self) -> Store:
        from crm_sync.store.engine import Store

        return Store(self.settings.database_url)

    @cached_property
    def vault(self) -> Vault:
        """What opens the paid answers.

        Raises:
            ConfigError: CRM_SYNC_SECRET_KEY is missing, too short, or another one than the database was sealed under.
        """
        from crm_sync.store.vault import open_vault

        return open_vault(self.store, self.key_ring, now=self.clock.now())

    @property
    def key_ring(self) -> tuple[Master, ...]:
        from crm_sync.store.vault import ring_of

        return ring_of(self.settings.secret_key.get_secret_value(), self.store)

    @cached_property
    def answers(self) -> Answers:
        from crm_sync.store.answers import Answers

        return Answers(self.store, self.vault)

    @cached_property
    def journal(self) -> Journal:
        from crm_sync.store.journal import Journal

        return Journal(self.store, self.vault)

    @cached_property
    def instance(self) -> Instance:
        from crm_sync.store.instance import Instance, StateFile

        return Instance(self.store, StateFile(self.state_path))

    @property
    def state_path(self) -> Path:
        """Where the epoch is noted outside the database (store/instance.py)."""
        if self.settings.state_file:
            return Path(self.settings.state_file)
        database = self.unchecked_store.path
        return database.with_name(database.name + ".instance") if database is not None else Path("crm_sync.instance")

    @cached_property
    def ledger(self) -> Ledger:
        from crm_sync.store.ledger import Ledger

        return Ledger(self.store, self.vault)

    @cached_property
    def suppressions(self) -> Suppressions:
        from crm_sync.store.suppressions import ERASED, Suppressions

        made = Suppressions(self.store, self.vault)
        # A database restored from a backup has forgotten who was erased since.
        made.add_digests(self.erasures.read(), ERASED, now=self.clock.now())
        return made

    @cached_property
    def erasures(self) -> Erasures:
        from crm_sync.store.erasures import Erasures

        return Erasures(self.instance.erasures_path, self.vault.digest("erasures"))

    @cached_property
    def privacy(self) -> Privacy:
        from adapters.apollo.archive import ApolloArchive
        from crm_sync.store.privacy import Privacy

        return Privacy(self.store, self.vault, ApolloArchive(), self.suppressions)

    @cached_property
    def provenance(self) -> Provenance:
        from crm_sync.store.provenance import Provenance

        return Provenance(self.store, self.vault)

    @cached_property
    def reviews(self) -> Reviews:
        from crm_sync.store.reviews import Reviews

        return Reviews(self.store, self.vault)

    @cached_property
    def deliveries(self) -> Deliveries:
        from crm_sync.store.deliveries import Deliveries

        return Deliveries(self.store, self.vault)

    @cached_property
    def hook_tokens(self) -> HookTokens:
        from crm_sync.store.hook_tokens import HookTokens

        # With another key than the others have, each of their tokens would be a forged one.
        self.vault  # noqa: B018 - opening it is the check

        def name() -> str:
            standing = self.instance.standing()
            return standing.id if standing is not None else ""

        return HookTokens(self.key_ring, name)

    @cached_property
    def reveals(self) -> Reveals:
        from crm_sync.store.reveals import Reveals

        return Reveals(self.store, self.vault, self.journal)

    @cached_property
    def callbacks(self) -> PublicAddress:
        from crm_sync.pipeline.public_address import PublicAddress

        base_url = self.settings.public_url
        return PublicAddress(
            base_url,
            tokens=lambda: self.hook_tokens,
            deliveries=lambda: self.deliveries,
            send=self._send_to_ourselves if base_url else None,
            clock=self.clock,
        )

    def _send_to_ourselves(self, path: str, content: bytes) -> int:
        from adapters.http import MIB, BoundedSession

        session = BoundedSession(
            provider="the public address",
            base_url=self.settings.public_url.rstrip("/"),
            setting=f"{PREFIX}PUBLIC_URL",
            connect_s=5.0,
            read_s=15.0,
            max_body=MIB,
            connections=1,
            headers={"Content-Type": "application/json"},
            operation_of=lambda _method, _path: "webhook",
        )
        try:
            return int(session.request("POST", path, data=content).status_code)
        finally:
            session.close()

    @cached_property
    def write_jobs(self) -> WriteJobs:
        from crm_sync.store.write_jobs import WriteJobs

        return WriteJobs(self.store)

    @cached_property
    def retention(self) -> Retention:
        from crm_sync.store.retention import Retention

        return Retention(self.store, self.provenance)

    @cached_property
    def versions(self) -> ConfigVersions:
        from crm_sync.store.config_versions import ConfigVersions

        return ConfigVersions(self.store)

    @cached_property
    def runs(self) -> Runs:
        from crm_sync.store.runs import Runs

        return Runs(self.store)

    @cached_property
    def health(self) -> Health:
        from crm_sync.store.health import Health

        return Health(self.store)

    @cached_property
    def alerts(self) -> Alerts:
        from crm_sync.store.alerts import Alerts

        return Alerts(self.store)

    @cached_property
    def notifiers(self) -> Notifiers:
        from crm_sync.alerts import Notifiers

        return Notifiers(
            slack_url=self.settings.slack_url.get_secret_value(),
            mail_url=self.settings.mail_url.get_secret_value(),
            named={name: value.get_secret_value() for name, value in load_notify_settings(self.env_file).items()},
        )

    @cached_property
    def queue(self) -> RunQueue:
        from crm_sync.store.run_queue import RunQueue

        return RunQueue(self.store, self.runs)

    @cached_property
    def schedules(self) -> Schedules:
        from crm_sync.store.schedules import Schedules

        return Schedules(self.store)

    @cached_property
    def shares(self) -> Shares:
        from crm_sync.store.shares import Shares

        return Shares(self.store, self.runs)

    @cached_property
    def hints(self) -> Hints | None:
        """How workers hear of work to do; None where no broker is named, so that they look for it.

        Raises:
            ConfigError: the setting cannot be used.
        """
        from crm_sync.workers import BROKER_SETTING, Hints

        url = self.settings.broker_url.get_secret_value()
        if not url:
            return None
        if self.unchecked_store.path is not None:
            raise ConfigError(
                f"{BROKER_SETTING} is set, and the database is an SQLite file: several workers share a PostgreSQL. "
                f"Name one in {PREFIX}DATABASE_URL, or leave {BROKER_SETTING} empty"
            )
        return Hints(url, name=self.vault.digest("broker").hex()[:12])

    def load_file(self) -> Loaded:
        """The configuration file as it is now, checked without the CRMs."""
        from crm_sync.config.loader import load_path

        return load_path(self.config_file)

    def how_to_configure(self) -> str:
        """The next step where nothing has been applied."""
        if self.config_file.exists():
            return f"{self.config_file} is there; run crm-sync config check, then crm-sync config apply"
        return f"write {self.config_file} (crm-sync init makes one to start from), then run crm-sync config apply"

    def applied(self) -> tuple[Config, int]:
        """The newest configuration version and its number.

        Raises:
            ConfigError: none was applied yet, or this version of crm-sync does not understand it.
            StoreError: the database cannot be asked, or has another schema by now.
        """
        from crm_sync.config.loader import kept, load

        self._look_at_schema()
        version = self.versions.latest()
        if version is None:
            raise ConfigError(f"No configuration has been applied yet: {self.how_to_configure()}")
        loaded = load(version.text, file=f"configuration version {version.number}", read_file=kept(version.files))
        return loaded.require(), version.number

    def newest_version(self) -> int | None:
        """The number of the newest applied configuration, None for none.

        Raises:
            StoreError: as `applied`.
        """
        self._look_at_schema()
        return self.versions.newest_number()

    def _look_at_schema(self) -> None:
        """Whoever works on and on comes by here at each turn, and hears when the database was migrated under it."""
        if time.monotonic() - self._looked_at_schema > _LOOK_AT_SCHEMA_S:
            self.store.ready()
            self._looked_at_schema = time.monotonic()

    # --- neighbours ---------------------------------------------------------------------------------------------

    def crm(self, name: str, crm_type: str) -> Crm:
        """The client of a CRM, made when first asked; its library is imported only then."""
        if name not in self._crms:
            self.require_settings([(name, crm_type)], apollo=False)
            self._crms[name] = _make_crm(name, self.crm_settings(name, crm_type), self.clock)
        return self._crms[name]

    @cached_property
    def pace(self) -> StorePace:
        from crm_sync.store.pace import StorePace

        return StorePace(self.store, clock=self.clock)

    def go_unpaced(self) -> None:
        """Ask without the pace that all processes share: for the few free calls of doctor, when the database that
        holds it cannot be used."""
        self.__dict__["pace"] = _Unpaced()

    @cached_property
    def enricher(self) -> Enricher:
        from adapters.apollo.client import ApolloEnricher

        self.require_settings([])
        settings = self.settings
        return ApolloEnricher(
            url=settings.apollo_url,
            api_key=settings.apollo_api_key.get_secret_value(),
            auth=settings.apollo_auth,
            pace=self.pace,
            clock=self.clock,
        )

    def services(self) -> Services:
        """Everything a walk needs, for the applied configuration."""
        from crm_sync.services import Services

        config, number = self.applied()
        return Services(
            config=config,
            config_version=number,
            newest_version=self.newest_version,
            crm=lambda name: self.crm(name, config.crms[name].type),
            enricher=lambda: self.enricher,
            runs=self.runs,
            queue=self.queue,
            schedules=self.schedules,
            shares=self.shares,
            provenance=self.provenance,
            reviews=self.reviews,
            write_jobs=self.write_jobs,
            answers=self.answers,
            journal=self.journal,
            instance=self.instance,
            suppressions=self.suppressions,
            privacy=self.privacy,
            reveals=self.reveals,
            deliveries=self.deliveries,
            callbacks=self.callbacks,
            clock=self.clock,
            vault=self.vault,
            hint=self.hints.give if self.hints is not None else None,
        )

    def watch(self, *, again: bool = True) -> Watch:
        """Tells whom the configuration names. `again`: it looks now and then, so that a slow neighbour can wait."""
        from crm_sync.store.exclusive import Exclusive
        from crm_sync.watch import NEIGHBOURS_S, PATIENTLY_S, Watch

        patience_s = NEIGHBOURS_S if again else PATIENTLY_S
        return Watch(self._watched, Exclusive(self.store, "watch"), patience_s=patience_s)

    def _watched(self) -> Watched:
        from crm_sync.alerts import shown
        from crm_sync.pipeline.scheduling import late_syncs
        from crm_sync.pipeline.watching import APOLLO
        from crm_sync.watch import Watched

        config, number = self.applied()
        wants_phones = any(sync.phones is not None for sync in config.syncs.values())

        def log_in(provider: str) -> str:
            return (self.enricher if provider == APOLLO else self.crm(provider, config.crms[provider].type)).log_in()

        return Watched(
            config=config,
            config_version=number,
            newest_version=self.newest_version,
            runs=self.runs,
            health=self.health,
            alerts=self.alerts,
            digest=lambda address: self.vault.digest(f"alert address {address}"),
            shown=shown,
            tell=self.notifiers.tell,
            log_in=log_in,
            public_url=self.callbacks.problem if wants_phones or self.settings.public_url else None,
            late=lambda: late_syncs(
                config,
                self.schedules.all(),
                waiting=self.queue.waiting(),
                running={run.sync for run, _, _ in self.runs.unfinished()},
                now=self.clock.now(),
            ),
            clock=self.clock,
        )

    @cached_property
    def processes(self) -> Processes:
        from crm_sync.store.processes import Processes

        return Processes(self.store)

    def presence(self, role: str) -> Presence:
        """Shows this process, a serve, worker or web, to the others that work on the database."""
        from crm_sync.presence import Presence
        from crm_sync.store.speed import measured

        name, began_at = secrets.token_hex(16), self.clock.now()
        return Presence(
            lambda: self.process(role, name, began_at),
            lambda: self.processes,
            measure=lambda: measured(self.store, now=self.clock.now()),
        )

    def process(self, role: str, name: str = "", began_at: datetime | None = None) -> Process:
        """This process as the others see it.

        Raises:
            CrmSyncError: the database, the secret key, the configuration or a setting.
        """
        from crm_sync.domain.processes import Process

        now = self.clock.now()
        number = self.newest_version()
        if self._agree is None or self._agree[0] != number:
            self._agree = number, self._must_agree(role)
        return Process(
            id=name,
            role=role,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            agree=self._agree[1],
            began_at=began_at or now,
            seen_at=now,
        )

    def _must_agree(self, role: str) -> dict[str, str]:
        """Settings that this role reads and that must be the same in all processes: what the keys of tokens, Apollo's
        account, the CRM's and the watchers' addresses are. As keyed digests, for they are secrets."""
        values = {f"{PREFIX}SECRET_KEY": ",".join(master.fingerprint for master in self.key_ring)}
        if role != "web":
            own = values_of(self.settings, PREFIX)
            values |= {name: own[name].rstrip("/") for name in _ALIKE}
            notify = sorted(
                (name, value.get_secret_value()) for name, value in load_notify_settings(self.env_file).items()
            )
            values[f"{NOTIFY_PREFIX}…"] = repr(notify)
            crms = self.applied()[0].crms if self.versions.newest_number() is not None else {}
            for crm in crms.values():
                prefix = crm_prefix(crm.name)
                # A file lies elsewhere on another machine.
                values |= {
                    name: value
                    for name, value in values_of(self.crm_settings(crm.name, crm.type), prefix).items()
                    if name != f"{prefix}PRIVATE_KEY_FILE"
                }
        return {name: self.vault.digest(f"setting {name}={value}").hex() for name, value in values.items()}

    def scrape(self) -> bytes:
        """What /metrics tells, as the database has it now.

        Raises:
            CrmSyncError: the database cannot be asked.
        """
        from crm_sync.pipeline.watching import used_of_limits
        from crm_sync.web.metrics import exposition

        number = self.versions.newest_number()
        if self._scraped is None or self._scraped[1] != number:
            self._scraped = self.applied() if number is not None else None
        config = self._scraped[0] if self._scraped is not None else None
        now = self.clock.now()
        budget = used_of_limits(config, self.health.spent, now) if config is not None else {}
        return exposition(self.health.snapshot(tuple(config.syncs) if config is not None else ()), budget, now)

    def check_ready(self) -> None:
        """
        Raises:
            CrmSyncError: the database cannot be used, has another schema, or was sealed under another secret key: no
                token of a callback would be known.
        """
        self.unchecked_store.ready()
        self.vault  # noqa: B018 - opening it is the check; once it is open it stays so

    def check_fit_for_work(self) -> None:
        """
        Raises:
            CrmSyncError: as `check_ready`; or the locks by which processes keep out of each other's way do not hold.
        """
        from crm_sync.store.exclusive import KEEP_SESSIONS, why_not_exclusive

        self.check_ready()
        if trouble := why_not_exclusive(self.store):
            raise StoreError(f"{trouble}; {KEEP_SESSIONS}")

    def close(self) -> None:
        for crm in self._crms.values():
            crm.close()
        if "enricher" in self.__dict__:
            self.enricher.close()
        if (hints := self.__dict__.get("hints")) is not None:
            hints.close()
        if "pace" in self.__dict__:
            self.pace.close()  # it tells the store the last answers; before the store closes
        if "unchecked_store" in self.__dict__:
            self.unchecked_store.close()


class _Unpaced:
    """ports.Pace where there is nothing to share it by: nobody waits, nothing is learned."""

    def acquire(self, endpoint: str, *, waiting: Callable[[float], None] | None = None) -> _Unpaced:  # noqa: ARG002
        return self

    def answered(self) -> None: ...

    def learn(self, endpoint: str, windows: Sequence[Window]) -> None: ...

    def park(self, endpoint: str, seconds: float) -> None: ...

    def parked_for(self, endpoint: str) -> float:  # noqa: ARG002
        return 0.0

    def close(self) -> None: ...


def _make_crm(name: str, group: CrmSettings, clock: Clock) -> Crm:
    if isinstance(group, SalesforceSettings):
        from adapters.salesforce.client import SalesforceCrm
        from adapters.salesforce.session import SalesforceCredentials

        return SalesforceCrm(
            name=name,
            url=group.url,
            credentials=SalesforceCredentials(
                auth=group.auth,
                consumer_key=group.consumer_key,
                consumer_secret=group.consumer_secret.get_secret_value(),
                private_key=_key_file(name, group.private_key_file),
                username=group.username,
                password=group.password.get_secret_value(),
                security_token=group.security_token.get_secret_value(),
                session_id=group.session_id.get_secret_value(),
            ),
            clock=clock,
            prefix=crm_prefix(name),
        )
    assert isinstance(group, HubSpotSettings)
    from adapters.hubspot.client import HubSpotCredentials, HubSpotCrm

    return HubSpotCrm(
        name=name,
        url=group.url,
        credentials=HubSpotCredentials(
            token=group.token.get_secret_value(),
            client_id=group.client_id,
            client_secret=group.client_secret.get_secret_value(),
            refresh_token=group.refresh_token.get_secret_value(),
        ),
        clock=clock,
        prefix=crm_prefix(name),
    )


def _key_file(name: str, path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{crm_prefix(name)}PRIVATE_KEY_FILE: {path} cannot be read ({reason})") from None


def web_app(app: App | None = None) -> Flask:
    """The WSGI application of an installation, by default that of the environment and .env; opens nothing until it is
    asked."""
    from crm_sync.web import create_app
    from crm_sync.web.metrics import metrics
    from webhooks.receiver import receiver

    mine = app or App(env_file=Path(".env") if Path(".env").exists() else None)
    if app is None and not logging.getLogger().handlers:  # whoever serves it may have a log of its own
        set_up_logs(mine)
    deliver = receiver(
        read_token=lambda token: mine.hook_tokens.read(token, now=mine.clock.now()),
        inbox=lambda: mine.deliveries,
        now=mine.clock.now,
    )
    made = create_app(
        check_ready=mine.check_ready,
        receiver=deliver,
        metrics=metrics(mine.scrape, mine.settings.metrics_token.get_secret_value),
        trusted_proxies=mine.settings.trusted_proxies,
    )
    if app is None:
        _be_present(made, mine)
    return made


def _be_present(web: Flask, app: App) -> None:
    """Show this process to the others from its first request on: before that it may still be forked, and the thread
    would stay behind. A server that knows when calls `extensions["crm_sync"]` itself (deploy/gunicorn.conf.py)."""
    import atexit
    import threading

    begun, stop = threading.Lock(), threading.Event()

    def begin() -> None:
        if not begun.acquire(blocking=False):
            return
        thread = threading.Thread(target=app.sibling().presence("web").run, args=(stop,), name="presence", daemon=True)
        thread.start()

        def end() -> None:
            stop.set()
            thread.join(timeout=_LEAVE_S)

        atexit.register(end)

    web.extensions["crm_sync"] = begin
    web.before_request(begin)


def set_up_logs(app: App) -> None:
    """Where the long-lived processes log, and report what nobody foresaw."""
    from crm_sync.logs import set_up

    set_up(kind=app.settings.log_format, level=app.settings.log_level)
    report(app)


def report(app: App) -> None:
    """Tell Sentry and OpenTelemetry's collector, where settings name them; nothing of theirs is imported else."""
    if dsn := app.settings.sentry_dsn.get_secret_value():
        from crm_sync.telemetry import report_to

        report_to(dsn)
    if endpoint := app.settings.otlp_endpoint:
        from crm_sync.tracing import trace_to

        trace_to(endpoint)


def serve(app: App, *, host: str, port: int, started: Callable[[str], None]) -> None:
    """Receiver, scheduler and worker in this process, until SIGTERM or SIGINT. `started` is told the address.

    Raises:
        OSError: the port is taken, or not for us.
    """
    from crm_sync.web.serving import WebServer

    set_up_logs(app)
    hops = app.settings.trusted_proxies
    server = WebServer(web_app(app), host=host, port=port, trusted_proxies=hops)
    with _until_stopped(server.stop), _background(app, "serve"):
        started(f"http://{host}:{server.port}")
        server.run()


def work(app: App) -> None:
    """Scheduler and worker in this process, until SIGTERM or SIGINT."""
    import threading

    set_up_logs(app)
    stop = threading.Event()
    with _until_stopped(stop.set), _background(app, "worker"):
        stop.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """What `worker --once` came to: the runs; how many rows were `purged`, notices `told` and not taken (`untold`); and
    why the purge or the telling was not done."""

    runs: Sequence[SyncRun]
    purged: int = 0
    told: int = 0
    untold: int = 0
    problems: Sequence[str] = ()


def work_once(app: App) -> Worked:
    """What is due, queued and delivered now, in the foreground; and what `serve` does now and then: the daily purge,
    and telling whom the configuration names.

    Raises:
        CrmSyncError: the database, the configuration or a setting.
    """
    import threading

    from crm_sync.pipeline.recover import recover_everywhere
    from crm_sync.pipeline.scheduling import queue_all_due
    from crm_sync.store.exclusive import Exclusive
    from crm_sync.workers import PhoneWorker, RunWorker

    report(app)
    services = app.services()
    recover_everywhere(services)
    queue_all_due(services)
    runner, stop, done = RunWorker(app.services), threading.Event(), []

    def end() -> None:
        stop.set()
        runner.pause()

    with _until_stopped(end):
        while (run := runner.once(stop)) is not None:
            done.append(run)
        phones = PhoneWorker(app.services, Exclusive(app.store, "phones"))
        phones.until_idle(stop)
        worked = Worked(runs=done)
        for chore in (_purged, _told):
            if not stop.is_set():
                try:
                    worked = chore(app, worked)
                except CrmSyncError as error:  # the other one is done all the same
                    worked = replace(worked, problems=[*worked.problems, str(error)])
    return worked


def _purged(app: App, worked: Worked) -> Worked:
    """The daily purge, where it is due and no scheduler is there to do it."""
    from crm_sync.pipeline.purge import purge_daily
    from crm_sync.store.exclusive import Exclusive

    with Exclusive(app.store, "scheduler") as lock:
        counts = purge_daily(app.applied()[0], app.retention, app.clock.now()) if lock.take() else None
    return replace(worked, purged=sum(counts.values())) if counts is not None else worked


def _told(app: App, worked: Worked) -> Worked:
    """Whom the alerts name, where no other process watches."""
    looked = app.watch(again=False).alone()
    return replace(worked, told=looked.told, untold=looked.not_told) if looked is not None else worked


@contextmanager
def _background(app: App, role: str) -> Iterator[None]:
    """What goes on beside the web, each in a thread and with clients of its own: a client's session and its count of
    calls are one walk's. At the end what is paid for is finished, and the rest is left to the next process."""
    import threading

    from crm_sync.pipeline.purge import purge_daily
    from crm_sync.scheduler import Scheduler
    from crm_sync.store.exclusive import Exclusive
    from crm_sync.workers import PhoneWorker, RunWorker

    of_runs, of_slots, of_watch = app.sibling(), app.sibling(), app.sibling()
    retention = of_slots.retention
    runner = RunWorker(of_runs.services, of_runs.hints)
    works = {
        "runs": runner.run,
        "phones": PhoneWorker(app.services, Exclusive(app.store, "phones")).run,
        "scheduler": Scheduler(
            of_slots.services,
            Exclusive(of_slots.store, "scheduler"),
            chores=[lambda services: purge_daily(services.config, retention, services.clock.now())],
        ).run,
        "watch": of_watch.watch().run,
        "presence": of_watch.presence(role).run,
    }
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(stop,), name=name, daemon=True) for name, run in works.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        runner.pause()
        until = time.monotonic() + DRAIN_S
        for thread in threads:
            thread.join(timeout=max(until - time.monotonic(), 0.0))
        if not any(thread.is_alive() for thread in threads):
            of_runs.close()
            of_slots.close()
            of_watch.close()


@contextmanager
def _until_stopped(stop: Callable[[], None]) -> Iterator[None]:
    import signal

    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
