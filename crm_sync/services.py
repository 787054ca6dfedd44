"""What a walk needs from the outside, made once by bootstrap."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from crm_sync.config.model import Config
from crm_sync.ports import Callbacks, Clock, Crm, Enricher
from crm_sync.store.answers import Answers
from crm_sync.store.deliveries import Deliveries
from crm_sync.store.instance import Instance
from crm_sync.store.journal import Journal
from crm_sync.store.privacy import Privacy
from crm_sync.store.provenance import Provenance
from crm_sync.store.reveals import Reveals
from crm_sync.store.reviews import Reviews
from crm_sync.store.run_queue import RunQueue
from crm_sync.store.runs import Runs
from crm_sync.store.schedules import Schedules
from crm_sync.store.shares import Shares
from crm_sync.store.suppressions import Suppressions
from crm_sync.store.vault import Vault
from crm_sync.store.write_jobs import WriteJobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`crm` and `enricher` make the client when first asked and keep it: a CRM nobody uses is never imported."""

    config: Config
    config_version: int | None
    #: The number of the newest applied configuration: another one, when somebody has applied one since.
    newest_version: Callable[[], int | None]
    crm: Callable[[str], Crm]
    enricher: Callable[[], Enricher]
    runs: Runs
    queue: RunQueue
    schedules: Schedules
    shares: Shares
    provenance: Provenance
    reviews: Reviews
    write_jobs: WriteJobs
    answers: Answers
    journal: Journal
    instance: Instance
    suppressions: Suppressions
    privacy: Privacy
    reveals: Reveals
    deliveries: Deliveries
    callbacks: Callbacks
    clock: Clock
    vault: Vault
    #: Tells one other worker that there is something to do. None: every run is one process's, and its workers look
    #: for queued ones by themselves.
    hint: Callable[[], None] | None = None

    def tell_others(self) -> None:
        """There is something to do: `hint`, where there is one."""
        if self.hint is not None:
            self.hint()

    def calls_so_far(self, crm_name: str) -> dict[str, int]:
        """Requests sent by this process, "provider operation" -> count."""
        crm = {f"{crm_name} {name}": count for name, count in self.crm(crm_name).calls().items()}
        return crm | {f"apollo {name}": count for name, count in self.enricher().calls().items()}

    def sign(self, content: bytes, what: bytes) -> str:
        """A signature that only this installation can make."""
        return self.vault.sign(content, what)

    def is_signed(self, content: bytes, what: bytes, signature: str) -> bool:
        return hmac.compare_digest(self.vault.sign(content, what).encode(), signature.encode())
