"""crm_sync.yaml as frozen values, checked and defaulted; what every other room reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from crm_sync.config.expressions import Condition
from crm_sync.domain.changes import WriteRule


@dataclass(frozen=True, slots=True, kw_only=True)
class CrmConfig:
    """One CRM under `crms:`. `name` is its key, which also names its settings group (CRM_SYNC_<NAME>_…)."""

    name: str
    type: str  # "salesforce" | "hubspot"
    environment: str  # "sandbox" | "production"
    write: str = "auto"  # "auto" | "strict" | "fast" | "bulk" (Salesforce only)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """Which records a sync takes. `missing_any` is resolved: the mapped fill fields when the file does not say."""

    where: Any = None
    missing_any: tuple[str, ...] = ()
    or_older_than: timedelta | None = None
    after_no_match_wait: timedelta = timedelta(days=180)
    at_most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendKey:
    """One key under `match.send`: the CRM fields to try in order, the first filled one counts.

    `as_domain` ("Account.Website | domain") turns a website or an e-mail into its registrable domain.
    """

    key: str  # email first_name last_name name organization_name domain linkedin_url
    fields: tuple[str, ...]
    as_domain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How a record becomes MatchKeys, and which answers are believed.

    `need_one_of`: alternatives, each a group of keys that must all be there. An answer is trusted when every proof of
    `trust_all` agrees and, where there are any, one of `trust_any` (mapping/trust.py); `otherwise` says what becomes of
    one that is not.
    """

    send: tuple[SendKey, ...]
    need_one_of: tuple[tuple[str, ...], ...]
    trust_all: tuple[str, ...] = ()
    trust_any: tuple[str, ...] = ()
    otherwise: str = "review"  # "review" | "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A CRM value for a number range, both ends included; None is open."""

    value: str
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMapping:
    """One CRM field <- Apollo. Exactly one of `source` (a dotted path such as "person.title") and `template` is set."""

    field: str
    source: str = ""
    template: str = ""
    rule: WriteRule = WriteRule.FILL
    transform: tuple[str, ...] = ()
    join: str | None = None
    max: int | None = None
    round: int | None = None
    #: Apollo value (folded, see mapping/picklists.py) -> CRM value; None: the field has no table.
    picklist: Mapping[str, str] | None = None
    #: "ask" | "leave" | "use"
    unmapped: str = "ask"
    unmapped_use: str = ""
    bands: tuple[Band, ...] = ()
    when: str = ""
    #: A number that moved by a smaller share of what the CRM holds is left alone: 0.05 for 5%.
    ignore_change_below: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentMapping:
    """`account:` of a people sync: fields of the parent record that `via` points at, fed by the same answer."""

    via: str
    object_type: str
    fields: tuple[FieldMapping, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phones:
    """`phones:` of a people sync: whose phone is revealed, and where each number goes.

    `reveal_when` is a filter in the CRM's own language, as Choose.where. `route`: kind of number (mobile, work_direct,
    home, work_hq, other) -> CRM field; a kind that is skipped is absent. `if_listed` says what becomes of a number on a
    do-not-call list: "skip" it, "write" it, or "mark_only": write none of this person's; `mark` is the checkbox that
    tells of it, "" for none. Apollo is polled after `wait`, and the reveal is closed after `give_up_after`.
    """

    reveal_when: Any
    route: Mapping[str, str]
    order: str = "after_match"  # "after_match" | "with_match"
    rule: WriteRule = WriteRule.FILL
    format: str = "e164"  # "e164" | "national" | "international"
    if_listed: str = "skip"  # "skip" | "write" | "mark_only"
    mark: str = ""
    wait: timedelta = timedelta(hours=2)
    give_up_after: timedelta = timedelta(days=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a sync runs by itself, in the configuration's time zone: by a `cron` expression, or `every` so often.

    A run begins up to `jitter` after its slot. `text` says it as people do: "weekdays at 02:30".
    """

    text: str
    cron: str = ""
    every: timedelta | None = None
    jitter: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """What is done when Apollo knows a person at another employer. `keep` are CRM fields that stay as they are."""

    notice_when: str  # "employer_domain_differs"
    then: str  # "flag" | "review" | "update"
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """One entry under `syncs:`."""

    name: str
    crm: str
    object_type: str
    choose: Choose
    match: Match
    fields: tuple[FieldMapping, ...]
    parent: ParentMapping | None = None
    phones: Phones | None = None
    job_change: JobChange | None = None
    schedule: Schedule | None = None  # None: by hand

    @property
    def is_company(self) -> bool:
        return self.object_type in ("Account", "companies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits in credits; None is no limit. Days and months are those of the configuration's time zone.

    `in_doubt`: "hold" | "abandon" | "retry", with `retry_up_to` credits a day at worst cost.
    """

    per_run: Decimal | None = None
    per_day: Decimal | None = None
    per_month: Decimal | None = None
    phones_per_month: Decimal | None = None
    at_limit: str = "pause"  # "pause" | "fail"
    in_doubt: str = "hold"
    retry_up_to: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppress:
    """Whom to leave alone. `lists` are file names; their content is kept only as keyed digests, never here.

    `when`: a record for which all conditions of one entry hold is left alone; their paths are CRM fields.
    `email_opt_out`: "leave_alone" | "enrich" those who opted out of e-mail in Salesforce (mapping/opt_outs.py).
    """

    lists: tuple[str, ...] = ()
    when: tuple[tuple[Condition, ...], ...] = ()
    email_domains: tuple[str, ...] = ()
    email_opt_out: str = "leave_alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """CRM fields that tell on the record itself when and how it was enriched; "" is none."""

    enriched_at: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long things are kept before the purge takes them."""

    answers: timedelta = timedelta(days=180)
    run_details: timedelta = timedelta(days=90)
    undo: timedelta = timedelta(days=60)
    deliveries: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration. `text` are the bytes it was read from."""

    text: bytes
    timezone: str
    crms: Mapping[str, CrmConfig]
    syncs: Mapping[str, Sync]
    workers: int = 4
    placeholders: tuple[str, ...] = ()
    budget: Budget = Budget()
    suppress: Suppress = Suppress()
    stamps: Stamps = Stamps()
    keep: Keep = Keep()
    warnings: tuple[str, ...] = field(default=())
    #: The picklist files it names, as read: they belong to the configuration as much as its text does.
    files: Mapping[str, bytes] = field(default_factory=dict)
