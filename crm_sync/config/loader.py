"""crm_sync.yaml -> Config, or every reason why not, all at once."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any

from crm_sync.config import expressions
from crm_sync.config.apollo_attributes import AttributeKind, find, vocabulary
from crm_sync.config.model import (
    Alert,
    Band,
    Budget,
    Choose,
    Config,
    CrmConfig,
    FieldMapping,
    JobChange,
    Keep,
    Match,
    ParentMapping,
    Phones,
    Schedule,
    SendKey,
    Stamps,
    Suppress,
    Sync,
)
from crm_sync.config.problems import InvalidConfigError, Path, Problem, Severity, did_you_mean, shown
from crm_sync.config.schema import (
    COMPANY_KEYS,
    EVENTS,
    OBJECTS,
    PROOFS,
    SCHEMA,
    Event,
    Findings,
)
from crm_sync.config.slots import schedule_of
from crm_sync.config.text import MAX_BYTES, Document, ordered, parse
from crm_sync.domain.changes import WriteRule
from crm_sync.errors import ConfigError
from crm_sync.mapping.picklists import BUILTIN_TABLES, builtin_table, fold

#: Reads a file named in the configuration; raises OSError when it is not there.
FileReader = Callable[[str], bytes]

# What proves a person or a company to Apollo, from strongest to weakest (contracts/apollo.md 2.1 and 5, 2026-10: a
# first name and a company name without a domain is refused before it costs a credit; 2.4: a company's name alone is
# no longer accepted).
_PEOPLE_PROOFS = (("email",), ("linkedin_url",), ("first_name", "last_name", "domain"), ("name", "domain"))
_COMPANY_PROOFS = (("domain",), ("linkedin_url",))

# The parent a people object points at, and its object in the same CRM.
_PARENTS = {"Contact": "Account", "contacts": "companies"}
_COMPANIES = ("Account", "companies")

#: The rules under which a value that differs may be written, or shown to a person.
_CHANGING = (WriteRule.TRACK, WriteRule.REVIEW, WriteRule.REPLACE)

_HUBSPOT_OPERATORS = (
    "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY",
    "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN",
)  # fmt: skip
_HUBSPOT_FILTER_KEYS = ("property", "operator", "value", "values", "highValue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of a text: `config` is None when any problem is an error. `problems` go from top to bottom."""

    document: Document
    config: Config | None
    problems: tuple[Problem, ...]

    def require(self) -> Config:
        """The configuration.

        Raises:
            InvalidConfigError: it has errors; the text is one line for each.
        """
        if self.config is None:
            raise InvalidConfigError(problem for problem in self.problems if problem.severity is Severity.ERROR)
        return self.config


def folder(base: FilePath, *, at_most: int = MAX_BYTES) -> FileReader:
    """Reads files that lie in `base` or below it, links out of it included in the refusal; of a longer one the first
    `at_most` bytes and one."""

    def read(name: str) -> bytes:
        path = (base / name).resolve()
        if not path.is_relative_to(base.resolve()):
            raise PermissionError(name)
        with path.open("rb") as file:
            return file.read(at_most + 1)

    return read


def kept(files: Mapping[str, bytes]) -> FileReader:
    """Reads files that were stored with a configuration version (Config.files)."""

    def read(name: str) -> bytes:
        try:
            return files[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    return read


def load_path(path: FilePath) -> Loaded:
    """The configuration in the file `path`, with the picklist files beside it.

    Raises:
        ConfigError: the file cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist. `crm-sync init` writes a configuration to start from.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or 'unknown reason'}.") from error
    return load(text, file=path.name, read_file=folder(path.parent))


def load(text: bytes, *, file: str = "crm_sync.yaml", read_file: FileReader | None = None) -> Loaded:
    """Read and check `text`. Never raises for what is in it.

    `file` is the name the messages carry; `read_file` reads a `picklist_file` by the name it has in the text.
    """
    document = parse(text, file=file)
    if document.root is None:
        return Loaded(document=document, config=None, problems=document.problems)
    findings = Findings(document=document)
    values = SCHEMA.read(document.root, (), findings)
    reader = _Reader(document, read_file or kept({}))
    problems = [*document.problems, *findings.problems]
    config: Config | None = None
    if isinstance(values, dict):
        built = reader.config(values)
        problems += reader.problems
        if not any(problem.severity is Severity.ERROR for problem in problems):
            config = built
    return Loaded(document=document, config=config, problems=ordered(problems))


#: Apollo keeps what it delivers for 30 days (contracts/apollo.md 3, 2026-10).
LONGEST_WAIT = timedelta(days=29)


class _Reader:
    """Values that fit their shapes -> Config, checking what spans several keys.

    Anything may be missing from a dict here, because it was refused before; the Config built then is thrown away.
    """

    def __init__(self, document: Document, read_file: FileReader) -> None:
        self._document = document
        self._read_file = read_file
        self._files: dict[str, bytes] = {}
        self.problems: list[Problem] = []

    def _error(self, path: Path, message: str, suggestion: str = "", *, key: bool = False) -> None:
        self.problems.append(self._document.problem(path, message, suggestion, key=key))

    def _warn(self, path: Path, message: str, suggestion: str = "") -> None:
        self.problems.append(self._document.problem(path, message, suggestion, severity=Severity.WARNING))

    def config(self, values: Mapping[str, Any]) -> Config:
        crms = {name: self._crm(name, crm) for name, crm in values.get("crms", {}).items()}
        syncs = {name: self._sync(name, sync, crms) for name, sync in values.get("syncs", {}).items()}
        stamps = self._stamps(("stamps",), values.get("stamps", {}), syncs.values())
        return Config(
            text=self._document.text,
            timezone=values.get("timezone", "UTC"),
            crms=crms,
            syncs=syncs,
            workers=values.get("apollo", {}).get("workers", 4),
            placeholders=values.get("placeholders", ()),
            budget=_budget(values.get("budget", {})),
            suppress=Suppress(**values.get("suppress", {})),
            stamps=stamps,
            keep=self._keep(("keep",), values.get("keep", {}), syncs.values()),
            alerts=tuple(
                self._alert(("alerts", nth), alert, syncs)
                for nth, alert in enumerate(values.get("alerts", ()))
                if isinstance(alert, dict) and "when" in alert
            ),
            warnings=tuple(str(p) for p in self.problems if p.severity is Severity.WARNING),
            files=self._files,
        )

    def _crm(self, name: str, values: Mapping[str, Any]) -> CrmConfig:
        crm = CrmConfig(
            name=name,
            type=values.get("type", ""),
            environment=values.get("environment", ""),
            write=values.get("write", "auto"),
        )
        if crm.type == "hubspot" and crm.write == "bulk":
            # Its imports are files with a mapping of columns and no answer for each record; a batch call has 100.
            self._error(
                ("crms", name, "write"),
                "HubSpot has no bulk interface for updates; its batch calls take 100 records each.",
                "Write auto, strict or fast.",
            )
        return crm

    def _stamps(self, at: Path, values: Mapping[str, Any], syncs: Iterable[Sync]) -> Stamps:
        """A field is a stamp or is filled from Apollo, never both: each would undo the other."""
        stamps = Stamps(**values)
        names = {name: key for key in ("enriched_at", "status") if (name := getattr(stamps, key))}
        if stamps.enriched_at and stamps.enriched_at == stamps.status:
            self._error((*at, "status"), f"{shown(stamps.status)} is `enriched_at` already.", "Name another field.")
        for sync in syncs:
            of_parent = sync.parent.fields if sync.parent is not None else ()
            for path, mappings in ((("fields",), sync.fields), (("account", "fields"), of_parent)):
                for mapping in mappings:
                    if mapping.field in names:
                        self._error(
                            ("syncs", sync.name, *path, mapping.field),
                            f"{mapping.field} is stamps.{names[mapping.field]}; it cannot be filled from Apollo too.",
                            "Map another field, or name another stamp.",
                            key=True,
                        )
        return stamps

    def _keep(self, at: Path, values: Mapping[str, Any], syncs: Iterable[Sync]) -> Keep:
        """Answers must outlive the windows in which they are used: a purged one would be bought again."""
        keep = Keep(**values)
        windows = {sync.name: sync.choose.or_older_than for sync in syncs if sync.choose.or_older_than is not None}
        longest = max(windows, key=lambda name: windows[name], default="")
        if longest and windows[longest] > keep.answers:
            window = expressions.written(windows[longest])
            message = f"answers would be thrown away before the refresh window of {shown(longest)} ({window}) ends"
            if "answers" in values:
                self._error((*at, "answers"), f"{message}, and bought again.", f"Write at least {window}.")
            else:
                self._error(
                    ("syncs", longest, "choose", "or_older_than"),
                    f"{message}, and bought again: they are kept for {expressions.written(keep.answers)}.",
                    f"Write keep: {{answers: {window}}}, or a shorter window.",
                )
        return keep

    def _alert(self, at: Path, values: Mapping[str, Any], syncs: Mapping[str, Sync]) -> Alert:
        """Each event takes one figure at most; another one beside it would be believed and do nothing."""
        when = values["when"]
        event = EVENTS[when]
        figures: dict[str, Any] = {}
        for key in ("above", "below", "after"):
            if key not in values:
                continue
            if key != event.figure:
                hint = f"Write `{event.figure}`." if event.figure else "Remove it."
                self._error((*at, key), f"`{key}` does not go with {when}.", hint, key=True)
                continue
            figures[key] = values[key]
        if event.figure and not figures and not any(key in values for key in ("above", "below", "after")):
            if event.default is None:
                self._error(at, f"{when} needs `{event.figure}`.", f"Write for example {event.figure}: 40%.")
            else:
                figures[event.figure] = event.default
        self._alert_figure(at, when, event, figures)
        named = values.get("syncs", ())
        if named and not event.of_syncs:
            self._error((*at, "syncs"), f"{when} is not about single syncs.", "Remove it.", key=True)
        for nth, name in enumerate(named):
            if syncs and name not in syncs:
                self._error(
                    (*at, "syncs", nth), f"there is no sync {shown(name)} under `syncs`.", did_you_mean(name, syncs)
                )
        about = [sync for name, sync in syncs.items() if not named or name in named]
        if when == "did_not_start" and not any(sync.schedule is not None for sync in about):
            self._warn((*at, "when"), "none of these syncs has a schedule, so none is ever late.")
        tell = tuple(dict.fromkeys(values.get("tell", ())))
        if any(map(_shows_a_secret, tell)):
            self._warn(
                (*at, "tell"),
                "an address that holds a password or a token is kept with each configuration version and shown by "
                "`config show`.",
                "Put it into a setting and write its name: env:CRM_SYNC_NOTIFY_OPS.",
            )
        return Alert(
            when=when,
            tell=tell,
            above=figures["above"] / 100 if "above" in figures else None,
            below=figures["below"] / 100 if "below" in figures else None,
            after=figures.get("after"),
            syncs=tuple(dict.fromkeys(named)),
        )

    def _alert_figure(self, at: Path, when: str, event: Event, figures: Mapping[str, Any]) -> None:
        """A figure that is never met would be an alert that nobody gets."""
        figure = figures.get(event.figure)
        if when == "rejected_share" and figure is not None and figure >= 100:
            self._error((*at, "above"), "no share is above 100%.", "Write a smaller percentage.")
        elif when in ("match_rate", "budget_used") and figure is not None and figure <= 0:
            never = "no rate is below 0%" if when == "match_rate" else "a budget would be used up from the beginning"
            self._error((*at, event.figure), f"{never}.", "Write a larger percentage.")

    # --- syncs ---

    def _sync(self, name: str, values: Mapping[str, Any], crms: Mapping[str, CrmConfig]) -> Sync:
        at: Path = ("syncs", name)
        crm_name, object_type = values.get("crm", ""), values.get("object", "")
        crm = crms.get(crm_name)
        if crm_name and crm is None and crms:
            self._error((*at, "crm"), f"there is no CRM {shown(crm_name)} under `crms`.", did_you_mean(crm_name, crms))
        crm_type = crm.type if crm is not None else ""
        if crm_type:
            known = OBJECTS[crm_type]
        else:
            known = tuple(each for objects in OBJECTS.values() for each in objects)
        if object_type and object_type not in known:
            where = f"a {crm_type} CRM" if crm_type else "any CRM"
            self._error(
                (*at, "object"),
                f"{shown(object_type)} is not an object a sync can fill in {where}.",
                did_you_mean(object_type, known),
            )
            object_type = ""
        is_company = object_type in _COMPANIES
        fields = self._fields(
            (*at, "fields"), values.get("fields", {}), company="a company look-up" if is_company else ""
        )
        return Sync(
            name=name,
            crm=crm_name,
            object_type=object_type,
            choose=self._choose((*at, "choose"), values.get("choose", {}), crm_type, fields),
            match=self._match((*at, "match"), values.get("match", {}), is_company=is_company),
            fields=fields,
            parent=self._parent((*at, "account"), values.get("account"), object_type),
            phones=self._phones((*at, "phones"), values, crm_type, is_company=is_company),
            job_change=self._job_change((*at, "job_change"), values, is_company=is_company),
            schedule=self._schedule((*at, "schedule"), values.get("schedule")),
        )

    def _schedule(self, at: Path, values: Mapping[str, Any] | None) -> Schedule | None:
        if values is None:
            return None
        keys = self._keys_at(at)
        ways = [way for way in ("days", "cron", "every") if way in keys]
        if len(ways) > 1:
            self._error(at, f"a schedule has one of days, cron and every, not {' and '.join(ways)}.")
        elif ways == ["days"] and "at" not in keys:
            self._error(at, "`at` is missing.", 'Write the time, for example at: "02:30".')
        elif "at" in keys and ways != ["days"]:
            self._error((*at, "at"), "`at` goes with `days` only.", key=True)
        elif not ways:
            self._error(
                at,
                "the schedule does not say when.",
                'Write {days: weekdays, at: "02:30"}, {cron: "…"} or {every: 4h}.',
            )
        return schedule_of(
            days=values.get("days"),
            at=values.get("at"),
            cron=values.get("cron"),
            every=values.get("every"),
            jitter=values.get("jitter"),
        )

    def _choose(self, at: Path, values: Mapping[str, Any], crm_type: str, fields: tuple[FieldMapping, ...]) -> Choose:
        where = self._where((*at, "where"), values.get("where"), crm_type, "AccountId != null")
        missing_any = values.get("missing_any")
        if missing_any is None:
            missing_any = tuple(f.field for f in fields if f.rule in (WriteRule.FILL, WriteRule.TRACK))
        return Choose(
            where=where,
            missing_any=tuple(dict.fromkeys(missing_any)),
            or_older_than=values.get("or_older_than"),
            after_no_match_wait=values.get("after_no_match_wait", timedelta(days=180)),
            at_most=values.get("at_most"),
        )

    def _where(self, at: Path, where: Any, crm_type: str, example: str) -> Any:
        """A filter in the CRM's own language, as Selection.where wants it."""
        if where is not None and crm_type == "salesforce" and not isinstance(where, str):
            self._error(at, "a filter for Salesforce is text.", f'Write a SOQL condition: "{example}".')
        if where is not None and crm_type == "hubspot":
            return self._hubspot_filters(at, where)
        return where

    def _hubspot_filters(self, at: Path, where: Any) -> list[list[dict[str, Any]]] | None:
        """HubSpot's filter as OR-list of AND-lists; a flat list of filters is one AND-list."""
        example = "Write a list such as [{property: lifecyclestage, operator: EQ, value: customer}]."
        if not isinstance(where, list) or not where:
            self._error(at, "a filter for HubSpot is a list.", example)
            return None
        groups: list[tuple[Path, Any]] = [((*at, i), group) for i, group in enumerate(where)]
        if not any(isinstance(group, list) for _, group in groups):
            groups = [(at, where)]
        found: list[list[dict[str, Any]]] = []
        for path, group in groups:
            if not isinstance(group, list) or not group:
                self._error(path, "groups of filters and single filters cannot be mixed.", "Put each filter in a list.")
                continue
            for i, each in enumerate(group):
                self._hubspot_filter((*path, i), each, example)
            found.append(group)
        return found

    def _hubspot_filter(self, at: Path, each: Any, example: str) -> None:
        if not isinstance(each, dict):
            self._error(at, "this is not a filter.", example)
            return
        for key in each:
            if key not in _HUBSPOT_FILTER_KEYS:
                hint = did_you_mean(key, _HUBSPOT_FILTER_KEYS)
                self._error((*at, key), f"unknown key {shown(key)} in a filter.", hint, key=True)
        for key in ("property", "operator"):
            if not isinstance(each.get(key), str):
                self._error(at, f"`{key}` is missing.", example)
        operator = each.get("operator")
        if not isinstance(operator, str):
            return
        if operator not in _HUBSPOT_OPERATORS:
            hint = did_you_mean(operator, _HUBSPOT_OPERATORS, at_most=20)
            self._error((*at, "operator"), f"unknown operator {shown(operator)}.", hint)
        wanted = {"IN": ("values",), "NOT_IN": ("values",), "BETWEEN": ("value", "highValue")}
        needs = () if operator.endswith("HAS_PROPERTY") else wanted.get(operator, ("value",))
        for key in needs:
            if each.get(key) in (None, "", []):
                self._error(at, f"the operator {shown(operator)} needs `{key}`.")
        if "values" in needs and "values" in each and not isinstance(each["values"], list):
            self._error((*at, "values"), "`values` is a list.")

    # --- match ---

    def _match(self, at: Path, values: Mapping[str, Any], *, is_company: bool) -> Match:
        sent = values.get("send", {})
        send: list[SendKey] = []
        for key, entries in sent.items():
            path = (*at, "send", key)
            if is_company and key not in COMPANY_KEYS:
                hint = "Write organization_name." if key == "name" else f"Known here: {', '.join(COMPANY_KEYS)}."
                self._error(path, f"a company is not looked up by {key}.", hint, key=True)
            as_domain = any(piped for _, piped in entries)
            if as_domain and key != "domain":
                self._error(path, '"| domain" is only for the key `domain`.')
            send.append(SendKey(key=key, fields=tuple(dict.fromkeys(f for f, _ in entries)), as_domain=as_domain))
        if "send" in values and not self._keys_at((*at, "send")):
            self._error((*at, "send"), "nothing is sent.", "Write at least one key, for example email: Email.")
        if is_company:
            sent = {key: entries for key, entries in sent.items() if key in COMPANY_KEYS}
        trust = values.get("trust_when", {})
        self._trust(at, values, sent, is_company=is_company)
        return Match(
            send=tuple(send),
            need_one_of=self._need_one_of(at, values, sent, is_company=is_company),
            trust_all=tuple(dict.fromkeys(trust.get("all", ()))),
            trust_any=tuple(dict.fromkeys(trust.get("any", ()))),
            otherwise=values.get("otherwise", "review"),
        )

    def _trust(self, at: Path, values: Mapping[str, Any], sent: Mapping[str, Any], *, is_company: bool) -> None:
        """A proof that cannot agree would let nobody pass, or tell the admin of a check that is never made."""
        has_rules = bool(self._keys_at((*at, "trust_when")))
        if is_company:
            for key in ("trust_when", "otherwise"):
                if key in values:
                    self._error(
                        (*at, key), f"`{key}` is about people; a company is found by what it is asked by.", key=True
                    )
            return
        if "otherwise" in values and not has_rules:
            self._error(
                (*at, "otherwise"), "`otherwise` goes with `trust_when`.", "Add proofs, or remove it.", key=True
            )
        if len(sent) < len(self._keys_at((*at, "send"))):
            return  # a key of `send` was refused, so what is sent is not known
        for group in ("all", "any"):
            proofs = values.get("trust_when", {}).get(group, ())
            dead = [proof for proof in proofs if not any(key in sent for key in PROOFS[proof])]
            complain = self._warn if group == "any" and len(dead) < len(proofs) else self._error
            for proof in dead:
                complain(
                    (*at, "trust_when", group, proofs.index(proof)),
                    f"{proof} can never agree: `send` has no {' or '.join(PROOFS[proof])}.",
                    "Send it, or remove the proof.",
                )

    def _phones(self, at: Path, sync: Mapping[str, Any], crm_type: str, *, is_company: bool) -> Phones | None:
        values = sync.get("phones")
        if values is None:
            return None
        if is_company:
            self._error(
                at, "`phones` is about people; a company has a switchboard, which comes with its data.", key=True
            )
        listed = values.get("do_not_call", {})
        route = {kind: field for kind, field in values.get("route", {}).items() if field != "skip"}
        phones = Phones(
            reveal_when=self._where((*at, "reveal_when"), values.get("reveal_when"), crm_type, "Status__c = 'Target'"),
            route=route,
            order=values.get("order", "after_match"),
            rule=WriteRule(values.get("write", WriteRule.FILL)),
            format=values.get("format", "e164"),
            if_listed=listed.get("if_listed", "skip"),
            mark=listed.get("mark", ""),
            wait=values.get("wait", timedelta(hours=2)),
            give_up_after=values.get("give_up_after", timedelta(days=3)),
        )
        if "route" in values and not route:
            self._error(
                (*at, "route"), "no number goes anywhere.", "Write at least one, for example mobile: MobilePhone."
            )
        if phones.rule is WriteRule.NEVER:
            self._error((*at, "write"), "`never` would pay for numbers and write none.", "Write fill, track or review.")
        if phones.if_listed == "mark_only" and not phones.mark:
            self._error(
                (*at, "do_not_call"), "mark_only needs `mark`.", "Name the checkbox, for example mark: DoNotCall."
            )
        if phones.wait >= phones.give_up_after:
            self._error((*at, "give_up_after"), "it must be longer than `wait`.", "Write a longer time.")
        if phones.give_up_after > LONGEST_WAIT:
            self._error(
                (*at, "give_up_after"), "Apollo keeps results for 30 days.", f"Write {LONGEST_WAIT.days}d at most."
            )
        mapped = {each for each in sync.get("fields", {}) if isinstance(each, str)}
        places = {(*at, "route", kind): field for kind, field in route.items()}
        if phones.mark:
            places[*at, "do_not_call", "mark"] = phones.mark
        for path, field in places.items():
            if field in mapped:
                self._error(path, f"{field} is filled under `fields` too.", "Keep one of them.")
        return phones

    def _job_change(self, at: Path, sync: Mapping[str, Any], *, is_company: bool) -> JobChange | None:
        values = sync.get("job_change")
        if values is None:
            return None
        if is_company:
            self._error(at, "`job_change` is about people; a company has no employer.", key=True)
        else:
            send = (*at[:-1], "match", "send")
            if self._keys_at(send) and not self._keys_at(send) & {"domain", "email"}:
                self._error(
                    (*at, "notice_when"),
                    "nothing is sent that tells the employer's domain, so a new one is never noticed.",
                    "Send domain or email.",
                )
        return JobChange(
            notice_when=values.get("notice_when", ""),
            then=values.get("then", ""),
            keep=tuple(dict.fromkeys(values.get("keep", ()))),
        )

    def _need_one_of(
        self, at: Path, values: Mapping[str, Any], sent: Mapping[str, Any], *, is_company: bool
    ) -> tuple[tuple[str, ...], ...]:
        proofs = _COMPANY_PROOFS if is_company else _PEOPLE_PROOFS
        words = "domain or linkedin_url" if is_company else "email, linkedin_url, or both names and the domain"
        given = values.get("need_one_of")
        if given is None:
            usable = tuple(proof for proof in proofs if all(key in sent for key in proof))
            if sent and not usable and len(sent) == len(self._keys_at((*at, "send"))):
                self._error((*at, "send"), "these keys are too weak to find anybody by.", f"Send {words}.", key=True)
            return usable
        for i, group in enumerate(given):
            unsent = [key for key in group if key not in sent]
            if unsent and unsent[0] in self._keys_at((*at, "send")):
                continue  # it is sent, and was refused above
            if unsent and sent:
                hint = did_you_mean(unsent[0], [key for key in sent if key not in group])
                self._error((*at, "need_one_of", i), f"{unsent[0]} is not a key of `send`.", hint)
            elif not _identifies(group, is_company=is_company):
                self._error(
                    (*at, "need_one_of", i),
                    f"{' and '.join(group)} alone {'does' if len(group) == 1 else 'do'} not identify "
                    f"{'a company' if is_company else 'a person'}.",
                    f"Ask for {words}.",
                )
        return tuple(tuple(group) for group in given)

    # --- fields ---

    def _parent(self, at: Path, values: Mapping[str, Any] | None, object_type: str) -> ParentMapping | None:
        if values is None:
            return None
        if object_type and object_type not in _PARENTS:
            self._error(at, f"`account` goes with contacts; {object_type} has no company record of its own.", key=True)
        return ParentMapping(
            via=values.get("via", ""),
            object_type=_PARENTS.get(object_type, ""),
            fields=self._fields((*at, "fields"), values.get("fields", {}), company="the company's record"),
        )

    def _fields(self, at: Path, values: Mapping[str, Any], *, company: str) -> tuple[FieldMapping, ...]:
        return tuple(
            self._field((*at, name), name, mapping, company=company)
            for name, mapping in values.items()
            if isinstance(mapping, dict)
        )

    def _field(self, at: Path, name: str, values: Mapping[str, Any], *, company: str) -> FieldMapping:
        source, template = values.get("from", ""), values.get("template", "")
        node_keys = self._keys_at(at)
        if source and template:
            self._error((*at, "template"), "a field has either `from` or `template`.", "Remove one of them.", key=True)
        elif not source and not template and not node_keys & {"from", "template"}:
            self._error(at, "`from` is missing.", "Write an Apollo attribute, for example from: person.title.")
        if company:
            self._only_companies(at, values, company)
        self._options_fit(at, values)
        unmapped = values.get("unmapped", "ask")
        return FieldMapping(
            field=name,
            source=source,
            template=template,
            rule=WriteRule(values.get("write", WriteRule.FILL)),
            transform=values.get("transform", ()),
            join=values.get("join"),
            max=values.get("max"),
            round=values.get("round"),
            picklist=self._picklist(at, values),
            unmapped="use" if isinstance(unmapped, dict) else unmapped,
            unmapped_use=unmapped.get("use", "") if isinstance(unmapped, dict) else "",
            bands=self._bands((*at, "bands"), values.get("bands", {})),
            when=values.get("when", ""),
            ignore_change_below=values.get("ignore_change_below", Decimal(0)) / 100,
        )

    def _keys_at(self, path: Path) -> set[str]:
        node = self._document.node(path)
        return {name.text for name, _ in node.entries} if node is not None else set()

    def _only_companies(self, at: Path, values: Mapping[str, Any], company: str) -> None:
        for key in ("from", "template", "when"):
            if "person." in values.get(key, "").replace("{{", " "):
                path = (*at, key) if key in self._keys_at(at) else at
                self._error(path, f"{company} is filled from organization.*; there is no person to take this from.")

    def _options_fit(self, at: Path, values: Mapping[str, Any]) -> None:
        """Options that cannot do anything together, or not with this attribute."""
        attribute = find(values["from"]) if "from" in values else None
        kind = attribute.kind if attribute is not None else AttributeKind.TEXT
        said = f"{values['from']} is {_article(kind)}" if attribute is not None else "a template is text"
        known = attribute is not None or "template" in values

        def refuse(key: str, message: str, suggestion: str = "") -> None:
            self._error((*at, key), message, suggestion, key=True)

        if "picklist" in values and not values.get("picklist_file", "builtin:").startswith("builtin:"):
            refuse(
                "picklist_file", "a field has either `picklist` or a CSV file.", "Write all its values in one place."
            )
        if "bands" in values and ("picklist" in values or "picklist_file" in values):
            refuse("bands", "a field has either `bands` or a picklist.", "Remove one of them.")
        if known and "bands" in values and not kind.is_number:
            refuse("bands", f"`bands` are for numbers; {said}.")
        if known and "round" in values and not kind.is_number:
            refuse("round", f"`round` is for numbers; {said}.")
        if "round" in values and "bands" in values:
            refuse("round", "`round` and `bands` cannot work together.", "Remove `round`.")
        if known and "join" in values and kind is not AttributeKind.LIST:
            refuse("join", f"`join` is for lists; {said}.")
        if known and "max" in values and (kind.is_number or kind is AttributeKind.BOOLEAN):
            refuse("max", f"`max` shortens text; {said}.")
        for key in ("picklist", "picklist_file", "bands"):
            if "max" in values and key in values:
                refuse("max", f"`max` would cut values of `{key}`.", "Remove `max`.")
        if known and "transform" in values and (kind.is_number or kind is AttributeKind.BOOLEAN):
            refuse("transform", f"`transform` is for text; {said}.")
        if "ignore_change_below" in values and known and not kind.is_number:
            refuse("ignore_change_below", f"`ignore_change_below` is for numbers; {said}.")
        elif "ignore_change_below" in values:
            for key in ("bands", "picklist", "picklist_file"):
                if key in values:
                    refuse(
                        "ignore_change_below",
                        f"`ignore_change_below` is for numbers; `{key}` makes a value of a picklist.",
                        "Remove `ignore_change_below`.",
                    )
            rule = values.get("write", "" if "write" in self._keys_at(at) else WriteRule.FILL)
            if rule and rule not in _CHANGING:
                self._warn(
                    (*at, "ignore_change_below"), f"under `{rule}` nothing that is there is changed, however little."
                )

    # --- picklists and bands ---

    def _picklist(self, at: Path, values: Mapping[str, Any]) -> Mapping[str, str] | None:
        """The field's table; its own entries go before those of a ready table that stands beside them."""
        table = None
        if "picklist_file" in values:
            table = self._picklist_file((*at, "picklist_file"), values["picklist_file"])
        if "picklist" in values:
            rows = (
                ((*at, "picklist", crm_value, position), apollo, crm_value)
                for crm_value, apollo_values in values["picklist"].items()
                for position, apollo in enumerate(apollo_values)
            )
            return {**(table or {}), **self._inverted(rows, _vocabulary(values))}
        return table

    def _inverted(self, rows: Iterable[tuple[Path, str, str]], words: tuple[str, ...]) -> dict[str, str]:
        table: dict[str, str] = {}
        known = {fold(word) for word in words}
        for path, apollo, crm_value in rows:
            if known and fold(apollo) not in known:
                # Not an error: the spelling of some industries is reconstructed (contracts/apollo.md 2.1, 2026-10).
                self._warn(path, f"{shown(apollo)} is not a word Apollo is known to use.", did_you_mean(apollo, words))
            first = table.setdefault(fold(apollo), crm_value)
            if first != crm_value:
                self._error(path, *_two_values(apollo, first, crm_value))
        return table

    def _picklist_file(self, at: Path, name: str) -> Mapping[str, str] | None:
        if name.startswith("builtin:"):
            builtin = name.removeprefix("builtin:")
            if builtin in BUILTIN_TABLES:
                return builtin_table(builtin)
            self._error(at, f"there is no built-in table {shown(builtin)}.", did_you_mean(builtin, BUILTIN_TABLES))
            return None
        try:
            content = self._read_file(name)
        except OSError:
            self._error(
                at,
                f"the file {shown(name)} cannot be read beside the configuration.",
                "It is a CSV file with the columns apollo and crm.",
            )
            return None
        self._files[name] = content
        table: dict[str, str] = {}
        for row in _csv_rows(name, content):
            if isinstance(row, Problem):
                self.problems.append(row)
                continue
            line, apollo, crm_value = row
            first = table.setdefault(fold(apollo), crm_value)
            if first != crm_value:
                self.problems.append(_in_csv(name, line, *_two_values(apollo, first, crm_value)))
        return table

    def _bands(self, at: Path, values: Mapping[str, tuple[float | None, float | None]]) -> tuple[Band, ...]:
        bands = sorted(
            (Band(value=value, low=low, high=high) for value, (low, high) in values.items()),
            key=lambda band: (band.low is not None, band.low or 0.0),
        )
        for one, other in pairwise(bands):
            if one.high is None or other.low is None or other.low <= one.high:
                self._error(
                    (*at, other.value), f"the bands {shown(one.value)} and {shown(other.value)} overlap.", key=True
                )
            elif other.low > one.high + 1:
                self._warn(
                    (*at, other.value),
                    f"numbers between {one.high:g} and {other.low:g} are in no band and stay without a value.",
                )
        return tuple(bands)


def _shows_a_secret(address: str) -> bool:
    """Whether a notice's address as it stands in the file lets its reader send as we do: those of all services do, but
    for mail without a password, the short forms, and plain web addresses without one."""
    scheme, _, rest = address.partition("://")
    if not rest or scheme.lower() in ("mailto", "mailtos", "json", "jsons", "xml", "xmls", "form", "forms"):
        return ":" in rest.partition("@")[0] and "@" in rest
    return True


def _budget(values: Mapping[str, Any]) -> Budget:
    limits = {name: value for name, value in values.items() if name != "in_doubt"}
    in_doubt = values.get("in_doubt", "hold")
    if isinstance(in_doubt, dict):
        return Budget(**limits, in_doubt="retry", retry_up_to=in_doubt.get("retry_up_to", Decimal(0)))
    return Budget(**limits, in_doubt=in_doubt)


def _vocabulary(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The closed list the field's Apollo words come from; empty when there is none, or transforms change the words."""
    attribute = find(values.get("from", ""))
    return vocabulary(attribute.vocabulary) if attribute is not None and "transform" not in values else ()


def _identifies(group: tuple[str, ...], *, is_company: bool) -> bool:
    keys = set(group)
    if is_company:
        return bool(keys & {"domain", "linkedin_url"})
    named = "name" in keys or {"first_name", "last_name"} <= keys
    return bool(keys & {"email", "linkedin_url"}) or (named and bool(keys & {"domain", "organization_name"}))


def _article(kind: AttributeKind) -> str:
    return {AttributeKind.TEXT: "text", AttributeKind.LONG_TEXT: "long text"}.get(
        kind,
        ("an " if kind.value[0] in "aeio" else "a ") + kind.value + (" value" if kind is AttributeKind.BOOLEAN else ""),
    )


def _two_values(apollo: str, first: str, second: str) -> tuple[str, str]:
    return (
        f"the Apollo value {shown(apollo)} has two CRM values, {shown(first)} and {shown(second)}.",
        "Keep one of them.",
    )


def _in_csv(file: str, line: int, message: str, suggestion: str = "") -> Problem:
    return Problem(file=file, line=line, column=1, path="", message=message, suggestion=suggestion)


def _csv_rows(file: str, content: bytes) -> Iterator[Problem | tuple[int, str, str]]:
    """(line, Apollo value, CRM value) of a picklist file; a row without a CRM value means "not mapped", skipped."""
    if len(content) > MAX_BYTES:
        yield _in_csv(file, 1, f"a picklist file may have at most {MAX_BYTES:,} bytes.")
        return
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        yield _in_csv(file, line, "this is not UTF-8 text.", "Save the file as CSV UTF-8.")
        return
    head = text.split("\n", 1)[0]
    # A spreadsheet in a country with decimal commas separates by semicolons.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in head and "," not in head else ",")
    try:
        columns = [cell.strip().casefold() for cell in next(rows, [])]
        if "apollo" not in columns or "crm" not in columns:
            yield _in_csv(file, 1, "the first line does not name the columns.", "Write apollo,crm.")
            return
        apollo, crm = columns.index("apollo"), columns.index("crm")
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= max(apollo, crm):
                yield _in_csv(
                    file, rows.line_num, "this line has too few columns.", "Write an Apollo value, then a CRM value."
                )
            elif not row[apollo].strip():
                yield _in_csv(file, rows.line_num, "this line has no Apollo value.")
            elif row[crm].strip():
                yield rows.line_num, row[apollo].strip(), row[crm].strip()
    except csv.Error:
        yield _in_csv(file, rows.line_num, "this line cannot be read as CSV.")
