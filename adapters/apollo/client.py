"""Apollo, as an Enricher: the calls, and what each way of failing means for the money."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

import orjson
import requests

from adapters.apollo import limits, phones, wire
from adapters.apollo.wire import PROVIDER, Question
from adapters.http import (
    MIB,
    BoundedSession,
    LostAnswerError,
    OversizedError,
    UnsentError,
    parse_object,
    retry,
    retry_after_s,
)
from crm_sync import crash
from crm_sync.domain.enrichment import CreditBalance, MatchKeys, Purpose, RawAnswer, Reading
from crm_sync.domain.reveals import OrderAnswer, PhoneDelivery, Polled, PollState
from crm_sync.errors import (
    ContractError,
    CredentialsError,
    CrmSyncError,
    DoubtError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RefusedError,
    TransientError,
)
from crm_sync.ports import UNLIMITED, AccessCheck, Clock, Pace

_MOST_WAITS = 6  # times one call is sent again after a 429; each waits for the window Apollo names
_LONGEST_WAIT_S = 900.0
_KEPT_TREES = 8
_BALANCE_EVERY_S = 60.0
_LONGEST_POLL_WAIT_S = 1.0

_USAGE = "/usage_stats/api_usage_stats"
_CREDITS = "/usage_stats/credit_usage_stats"
#: A signed 64-bit number as text (contracts/apollo.md 2.1, 2026-10); nothing else goes into a path.
_REQUEST_ID = re.compile(r"-?[0-9]{1,39}\Z")
_POLL_NOT_ALLOWED = (
    "the key may not poll (scope webhook_result_read): deliveries are believed by their token alone, and numbers whose "
    "delivery is lost cannot be fetched"
)


def _no_patience(seconds: float) -> None:
    """A poll is free and can come later; what waits behind it must not wait for a window of Apollo's."""
    if seconds > _LONGEST_POLL_WAIT_S:
        raise RateLimitError(
            f"{phones.POLL} is not polled now: its window is used up for {seconds:.0f} s",
            provider=PROVIDER,
            operation=phones.POLL,
            retry_after_s=seconds,
        )


class Departure(NamedTuple):
    """What the caller wants to know of a paid call before it leaves, see ports.Enricher.ask."""

    leaving: Callable[[], None]
    waiting: Callable[[float], None] | None


class ApolloEnricher:
    """ports.Enricher over requests. `url` ends where the endpoint names begin ("https://api.apollo.io/api/v1").

    `auth`: "header" sends the key as x-api-key; "body" is the older contract (key in the JSON body, in the query for
    GET), which today's Apollo refuses with 422. `read_timeout_s` below 60 manufactures doubt: Apollo may answer, and
    charge, after we have stopped listening.
    """

    per_call = wire.PER_CALL

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        auth: Literal["header", "body"] = "header",
        pace: Pace,
        clock: Clock,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 60.0,
        connections: int = 16,
    ) -> None:
        """
        Raises:
            ConfigError: `url` is not https (or loopback).
        """
        self._pace = pace
        self._clock = clock
        self._key_in_body = api_key if auth == "body" else ""
        headers = {"Accept": "application/json", "Content-Type": "application/json", "Cache-Control": "no-cache"}
        if auth == "header":
            headers["x-api-key"] = api_key
        self._session = BoundedSession(
            provider=PROVIDER,
            base_url=url,
            setting="CRM_SYNC_APOLLO_URL",
            connect_s=connect_timeout_s,
            read_s=read_timeout_s,
            max_body=4 * MIB,  # ten people are some 60 kB in bulk; a single rich one was measured at 60 kB
            connections=connections,
            headers=headers,
            operation_of=self._operation,
        )
        self._lock = threading.Lock()
        self._trees: dict[int, tuple[bytes, dict[str, Any]]] = {}
        self._flooded = False
        self._balance_asked_at: float | None = None

    # --- paid ---

    def endpoint(self, purpose: Purpose, *, single: bool) -> str:
        return (wire.SINGLE if single else wire.BULK)[purpose]

    def most(self, purpose: Purpose, *, reveals: bool = False) -> Decimal:
        """One credit, for a person and for a company; nine where a mobile is revealed (contracts/apollo.md 5, 2026-10).

        A person whom an earlier call bought may be charged again: Apollo does not promise otherwise.
        """
        return phones.CREDITS if reveals or purpose is Purpose.PHONE else Decimal(1)

    def ask(
        self,
        purpose: Purpose,
        keys: Sequence[MatchKeys],
        *,
        leaving: Callable[[], None],
        waiting: Callable[[float], None] | None = None,
        callback: str = "",
    ) -> RawAnswer:
        if not 1 <= len(keys) <= self.per_call:
            raise ValueError(f"one call asks for 1 to {self.per_call}, not {len(keys)}")
        if purpose is (Purpose.COMPANY if callback else Purpose.PHONE):
            raise ValueError("phone numbers are delivered to a callback, and nothing else is")
        self._check_flood()
        if callback:
            question = phones.reveal_question(keys, callback, key_in_body=self._key_in_body)
        else:
            question = wire.bulk_question(purpose, keys, key_in_body=self._key_in_body)
        return self._pay(purpose, question, Departure(leaving, waiting), single=False)

    def ask_one(
        self,
        purpose: Purpose,
        keys: MatchKeys,
        *,
        leaving: Callable[[], None],
        waiting: Callable[[float], None] | None = None,
    ) -> RawAnswer:
        if purpose is Purpose.PHONE:
            raise ValueError("phone numbers are ordered with `ask`")
        self._check_flood()
        question = wire.single_question(purpose, keys, key_in_body=self._key_in_body)
        return self._pay(purpose, question, Departure(leaving, waiting), single=True)

    def _pay(self, purpose: Purpose, question: Question, departure: Departure, *, single: bool) -> RawAnswer:
        response = self._send_paced(question, departure)
        body, status = response.content, response.status_code
        if single and status == 404 and not body.lstrip().startswith(b"<"):
            # How the single endpoints may say "nobody" (contracts/apollo.md 2.2, 2026-10); kept in their other way
            # of saying it, so that the stored bytes read as a miss without their status. A page is no answer.
            return RawAnswer(body=b"{}", credits=None, request_id="")
        if status != 200:
            raise _failure(response, question.endpoint)
        try:
            tree = parse_object(body, provider=PROVIDER, operation=question.endpoint, status=status)
        except ContractError as error:
            raise _doubt(str(error), question.endpoint, status=status, body=body) from error
        problem = wire.missing_answer(purpose, tree, single=single)
        if problem:
            refusal = _known_refusal(tree, question.endpoint, status)
            if refusal is not None:
                raise refusal
            raise _doubt(f"Apollo's answer cannot be read: {problem}", question.endpoint, status=status, body=body)
        answer = RawAnswer(body=body, credits=wire.credits_charged(tree), request_id=wire.request_id_text(tree, body))
        if wire.only_placeholders(tree):
            self._flooded = True
        if wire.found_nothing(purpose, tree) and self._out_of_credits():
            # Nothing came, so nothing was charged: "unknown" would be remembered for half a year, and wrongly.
            raise _credits_used_up(question.endpoint, status=status)
        self._keep(body, tree)
        return answer

    def _send_paced(self, question: Question, departure: Departure) -> requests.Response:
        """One answer that is not a 429, or the error that says whether money may have moved."""
        endpoint = question.endpoint
        for waits in range(_MOST_WAITS + 1):
            response = retry(
                lambda: self._send_once(question, departure), harmless=False, clock=self._clock, tries=3, total_s=30.0
            )
            if response.status_code != 429:
                return response
            wait = retry_after_s(response.headers, self._clock.now())
            if wait is None:
                wait = min(300.0, 15.0 * 2**waits) * (0.5 + random.random() / 2)  # noqa: S311  (no secret)
            if wait > _LONGEST_WAIT_S:
                until = self._clock.now() + timedelta(seconds=wait)
                self._pace.park(endpoint, wait)
                raise QuotaError(
                    f"Apollo's limit for {endpoint} is used up until {until:%Y-%m-%d %H:%M} UTC; "
                    "the run ends here and a later one goes on",
                    provider=PROVIDER,
                    operation=endpoint,
                    status=429,
                )
            self._pace.park(endpoint, max(wait, 0.1))  # for all workers: acquire waits it out
        raise RateLimitError(
            f"Apollo answered {endpoint} with 429 (too many calls) {_MOST_WAITS + 1} times; somebody else may be "
            "using up the team's limit",
            provider=PROVIDER,
            operation=endpoint,
            status=429,
            retry_after_s=wait,
        )

    def _send_once(self, question: Question, departure: Departure | None) -> requests.Response:
        endpoint = question.endpoint
        crash.point("pace.before")
        ticket = self._pace.acquire(endpoint, waiting=departure.waiting if departure else None)
        crash.point("pace.granted")
        try:
            if departure:
                departure.leaving()
            response = self._session.request(question.method, question.target, data=question.body)
        except UnsentError as error:
            raise UnsentError(f"{error}. Nothing was charged", provider=PROVIDER, operation=endpoint) from error
        except LostAnswerError as error:
            raise _doubt(str(error), endpoint, status=error.status, body=error.body) from error
        except ContractError as error:  # oversized, a redirect
            body = error.body if isinstance(error, OversizedError) else b""
            raise _doubt(str(error), endpoint, status=error.status, body=body) from error
        finally:
            ticket.answered()
        self._pace.learn(endpoint, limits.windows_of_headers(response.headers))
        return response

    def _check_flood(self) -> None:
        """After an answer full of locked addresses, look at the balance before paying again.

        No source tells how Apollo refuses when credits run out; one project saw a 200 with nothing but placeholders
        (contracts/apollo.md 4, 2026-10).
        """
        if self._flooded and self._out_of_credits():
            raise _credits_used_up("people/bulk_match", status=None)

    def _out_of_credits(self) -> bool:
        """What the balance says, asked at most once a minute; False where it is not told or was just asked."""
        now = self._clock.now().timestamp()
        with self._lock:
            if self._balance_asked_at is not None and now - self._balance_asked_at < _BALANCE_EVERY_S:
                return False
            self._balance_asked_at = now
            self._flooded = False
        try:
            balance = self.balance()
        except ProviderError:
            return False  # asked out of caution only: the paid call itself will tell
        if balance is None or balance.left > 0:
            return False
        with self._lock:
            self._balance_asked_at = None  # nobody pays before the balance says otherwise
            self._flooded = True
        return True

    # --- reading ---

    def read(self, purpose: Purpose, keys: Sequence[MatchKeys], body: bytes) -> Reading:
        with self._lock:
            kept = self._trees.pop(id(body), None)
        tree = kept[1] if kept is not None and kept[0] is body else parse_object(body, provider=PROVIDER)
        return wire.read_answer(purpose, keys, tree)

    def order_answer(self, body: bytes) -> OrderAnswer:
        return phones.read_order_answer(parse_object(body, provider=PROVIDER))

    def read_delivery(self, body: bytes) -> PhoneDelivery:
        return phones.read_delivery(body)

    def _keep(self, body: bytes, tree: dict[str, Any]) -> None:
        """`ask` had to parse the answer; `read` of the very same bytes need not again. Reading uses the tree up."""
        with self._lock:
            while len(self._trees) >= _KEPT_TREES:
                del self._trees[next(iter(self._trees))]
            self._trees[id(body)] = (body, tree)

    # --- free of charge ---

    def balance(self) -> CreditBalance | None:
        response = self._free("POST", _CREDITS)
        if response.status_code in (403, 404):
            return None  # a scope of its own that a key which enriches may lack (contracts/apollo.md 1, 2026-10)
        if response.status_code != 200:
            raise _free_failure(response, "credit_usage_stats")
        return wire.read_balance(
            parse_object(response.content, provider=PROVIDER, operation="credit_usage_stats", status=200)
        )

    def poll(self, request_id: str) -> Polled:
        if not _REQUEST_ID.match(request_id):
            return Polled(state=PollState.UNKNOWN, reason="it is no request id of Apollo's, so it was not polled")
        parked = self._pace.parked_for(phones.POLL)
        if parked > 1:
            raise RateLimitError(
                f"{phones.POLL} is not polled: {self._parked_words(parked)}",
                provider=PROVIDER,
                operation=phones.POLL,
                retry_after_s=parked,
            )
        response = retry(lambda: self._poll_once(request_id), harmless=True, clock=self._clock, tries=3, total_s=5.0)
        status, body = response.status_code, response.content
        if status in (200, 400, 401, 403, 404, 410):
            return phones.read_poll(status, body, request_id=request_id)
        raise _free_failure(response, phones.POLL)

    def _poll_once(self, request_id: str) -> requests.Response:
        target = f"/{phones.POLL}/{request_id}"
        if self._key_in_body:
            target += "?" + urlencode({"api_key": self._key_in_body})
        ticket = self._pace.acquire(phones.POLL, waiting=_no_patience)
        try:
            response = self._session.request("GET", target)
        finally:
            ticket.answered()
        self._pace.learn(phones.POLL, limits.windows_of_headers(response.headers))
        if response.status_code == 429:
            wait = retry_after_s(response.headers, self._clock.now())
            self._pace.park(phones.POLL, max(15.0 if wait is None else wait, 0.1))  # for all workers
            raise RateLimitError(
                f"Apollo answered {phones.POLL} with 429 (too many calls)",
                provider=PROVIDER,
                operation=phones.POLL,
                status=429,
                retry_after_s=wait,
            )
        if response.status_code >= 500:
            raise _free_failure(response, phones.POLL)
        return response

    def check_access(self) -> list[AccessCheck]:
        key = self._check_key()
        if not key.ok:
            return [key]
        return [
            key,
            self._check_refused("people/bulk_match", "POST", b'{"details":[]}'),
            self._check_refused("organizations/bulk_enrich", "POST", b'{"details":[]}'),
            self._check_refused("organizations/enrich", "GET", None),
            AccessCheck(
                name="Apollo people/match",
                ok=True,
                detail="not tried: no documented call to it is certainly free of charge. It is used only for people a "
                "bulk answer left open; give the key this scope too",
            ),
            self._check_poll(),
            self._check_limits(),
            self._check_credits(),
        ]

    def log_in(self) -> str:
        response = self._free("GET", "/auth/health")
        if response.status_code == 404:
            return "not told: this Apollo has no auth/health"
        if response.status_code != 200:
            raise _free_failure(response, "auth/health")
        tree = parse_object(response.content, provider=PROVIDER, operation="auth/health", status=200)
        if not tree.get("is_logged_in"):
            raise CredentialsError(
                "Apollo does not know this key", provider=PROVIDER, operation="auth/health", status=200
            )
        return "accepted"

    def _check_key(self) -> AccessCheck:
        name = "Apollo key"
        try:
            return AccessCheck(name=name, ok=True, detail=self.log_in())
        except CrmSyncError as error:
            cure = "Check CRM_SYNC_APOLLO_API_KEY and CRM_SYNC_APOLLO_URL"
            return AccessCheck(name=name, ok=False, detail=str(error), cure=cure)

    def _check_refused(self, endpoint: str, method: str, body: bytes | None) -> AccessCheck:
        """A question without content: refused with 400 or 422 where the key may ask, with 403 where it may not."""
        name = f"Apollo {endpoint}"
        target = f"/{endpoint}"
        if self._key_in_body:
            if body is None:
                target += "?" + urlencode({"api_key": self._key_in_body})
            else:
                body = orjson.dumps({"api_key": self._key_in_body, **orjson.loads(body)})
        try:
            parked = self._pace.parked_for(endpoint)
            if parked > 1:
                return AccessCheck(name=name, ok=True, detail=f"not tried: {self._parked_words(parked)}")
            response = self._send_once(Question(endpoint=endpoint, method=method, target=target, body=body), None)
            if response.status_code == 429:
                return AccessCheck(name=name, ok=True, detail="not told: Apollo answered 429 (too many calls)")
            if response.status_code in (400, 422):
                failure = _failure(response, endpoint)
                if isinstance(failure, RefusedError):
                    return AccessCheck(name=name, ok=True, detail="the key may use it")
                raise failure
            if response.status_code in (200, 404):
                return AccessCheck(name=name, ok=True, detail="the key may use it")
            raise _failure(response, endpoint)
        except CrmSyncError as error:
            return AccessCheck(
                name=name,
                ok=False,
                detail=str(error),
                cure=f"Give the key the scope api/v1/{endpoint} in Apollo's settings, or use a master key",
            )

    def _check_poll(self) -> AccessCheck:
        """A poll for a request that nobody made. Not being allowed to is no failure: numbers arrive all the same."""
        name = f"Apollo {phones.POLL}"
        try:
            polled = self.poll("0")
        except CrmSyncError as error:
            return AccessCheck(name=name, ok=True, detail=f"not told: {error}")
        if polled.state is PollState.NOT_ALLOWED:
            return AccessCheck(name=name, ok=True, detail=_POLL_NOT_ALLOWED)
        return AccessCheck(name=name, ok=True, detail="the key may use it")

    def _check_limits(self) -> AccessCheck:
        name = "Apollo limits"
        untold = "not told to this key; they are learned from the first answers"
        try:
            response = self._free("POST", _USAGE)
            if response.status_code != 200:
                return AccessCheck(name=name, ok=True, detail=untold)
            stats = parse_object(response.content, provider=PROVIDER, operation="api_usage_stats", status=200)
        except CrmSyncError:
            return AccessCheck(name=name, ok=True, detail=untold)
        told = []
        for endpoint in dict.fromkeys((*wire.BULK.values(), *wire.SINGLE.values())):
            parked = self._pace.parked_for(endpoint)
            if parked > 1:
                told.append(f"{endpoint}: {self._parked_words(parked)}")
            windows = limits.windows_of_usage(stats, endpoint)
            if windows:
                self._pace.learn(endpoint, windows)
                told.append(f"{endpoint} {', '.join(_window_words(w.seconds, w.limit) for w in windows)}")
        return AccessCheck(name=name, ok=True, detail="; ".join(told) or untold)

    def _parked_words(self, seconds: float) -> str:
        until = self._clock.now() + timedelta(seconds=seconds)
        return f"Apollo asked us to wait until {until:%H:%M:%S} UTC (too many calls)"

    def _check_credits(self) -> AccessCheck:
        name = "Apollo credits"
        try:
            balance = self.balance()
        except CrmSyncError as error:
            return AccessCheck(name=name, ok=False, detail=str(error), cure="Try again later")
        if balance is None:
            detail = "not told to this key (the scope credit_usage_stats_read is missing); runs work without it"
            return AccessCheck(name=name, ok=True, detail=detail)
        renews = f", renewed {balance.renews_at[:10]}" if balance.renews_at else ""
        if balance.left <= Decimal(0):
            return AccessCheck(name=name, ok=False, detail=f"none left{renews}", cure="Buy credits or wait")
        return AccessCheck(name=name, ok=True, detail=f"{balance.left.normalize():,f} left{renews}")

    def _free(self, method: str, path: str) -> requests.Response:
        def send() -> requests.Response:
            body: bytes | None = None if method == "GET" else b""
            target = path
            if self._key_in_body:
                if method == "GET":
                    target = path + "?" + urlencode({"api_key": self._key_in_body})
                else:
                    body = orjson.dumps({"api_key": self._key_in_body})
            response = self._session.request(method, target, data=body)
            if response.status_code == 429:
                raise RateLimitError(
                    f"Apollo answered {path.lstrip('/')} with 429 (too many calls)",
                    provider=PROVIDER,
                    operation=path.lstrip("/"),
                    status=429,
                    retry_after_s=retry_after_s(response.headers, self._clock.now()),
                )
            if response.status_code >= 500:
                raise _free_failure(response, path.lstrip("/"))
            return response

        return retry(send, harmless=True, clock=self._clock, tries=4, total_s=30.0)

    def calls(self) -> dict[str, int]:
        return self._session.calls()

    def close(self) -> None:
        self._session.close()

    def _operation(self, _method: str, path: str) -> str:
        words = path.rsplit("/", 2)[-2:]
        return phones.POLL if words[0] == phones.POLL else "/".join(words)  # one name, whichever request it asks about


# --- failures -----------------------------------------------------------------------------------------------------


def _failure(response: requests.Response, endpoint: str) -> ProviderError:
    """What an answer other than 200 and 429 to a paid call means.

    Only a well-formed refusal of Apollo's own proves that nothing was charged; a 5xx, a proxy's page or an unknown
    body proves nothing (design/reliability.md 2.4, E2).
    """
    status, body = response.status_code, response.content
    try:
        tree = parse_object(body, provider=PROVIDER, operation=endpoint, status=status)  # text/plain may hold JSON
    except ContractError:
        tree = {}
    refusal = _known_refusal(tree, endpoint, status)
    if refusal is not None:
        return refusal
    if status in (401, 403):
        where = "a web page, not Apollo," if body.lstrip().startswith(b"<") else "Apollo"
        cure = (
            "check CRM_SYNC_APOLLO_API_KEY"
            if status == 401
            else "give the key this endpoint's scope, use a master key, or check the plan"
        )
        return CredentialsError(
            f"{where} refused the key for {endpoint} (HTTP {status}); {cure}",
            provider=PROVIDER,
            operation=endpoint,
            status=status,
        )
    words = wire.error_text(tree)
    if status in (400, 422) and words:
        return RefusedError(
            f"Apollo refused the content of a call to {endpoint} (HTTP {status}: {wire.shown(words)})",
            provider=PROVIDER,
            operation=endpoint,
            status=status,
        )
    return _doubt(
        f"Apollo answered {endpoint} with HTTP {status}, which proves nothing", endpoint, status=status, body=body
    )


def _known_refusal(tree: dict[str, Any], endpoint: str, status: int) -> ProviderError | None:
    """Refusals that Apollo sends under more than one status."""
    code, words = wire.error_code(tree), wire.error_text(tree).casefold()
    # No source tells status or body (contracts/apollo.md 4, 2026-10); "credentials" does not contain the word.
    if status == 402 or "credit" in words or "CREDIT" in code:
        return _credits_used_up(endpoint, status=status)
    if code.startswith("INVALID_API_KEY") or code == "INVALID_ACCESS_TOKEN" or "x-api-key header" in words:
        return CredentialsError(
            "Apollo wants its key in the x-api-key header: set CRM_SYNC_APOLLO_AUTH=header"
            if "LOCATION" in code or "header" in words
            else f"Apollo refused the key for {endpoint} ({code}); check CRM_SYNC_APOLLO_API_KEY",
            provider=PROVIDER,
            operation=endpoint,
            status=status,
        )
    if "webhook_url" in words and status < 500:
        # No code goes with these words (contracts/apollo.md 3 and 4, 2026-10). No record is at fault, so the batch must
        # not be halved.
        return CredentialsError(
            "Apollo refused the address that it should deliver phone numbers to: set CRM_SYNC_PUBLIC_URL to an https "
            "address that Apollo can reach. Nothing was ordered, and nothing was charged",
            provider=PROVIDER,
            operation=endpoint,
            status=status,
        )
    return None


def _credits_used_up(endpoint: str, *, status: int | None) -> QuotaError:
    return QuotaError(
        "Apollo's credits are used up; the run ends here and a later one goes on when there are new ones",
        provider=PROVIDER,
        operation=endpoint,
        status=status,
    )


def _doubt(message: str, endpoint: str, *, status: int | None, body: bytes) -> DoubtError:
    return DoubtError(
        f"{message}. It may have been charged", provider=PROVIDER, operation=endpoint, status=status, body=body
    )


def _free_failure(response: requests.Response, operation: str) -> ProviderError:
    status = response.status_code
    kind: type[ProviderError] = TransientError if status >= 500 else ContractError
    cure = "try again later" if status >= 500 else "check CRM_SYNC_APOLLO_URL"
    if status in (401, 403, 422):
        kind, cure = CredentialsError, "check CRM_SYNC_APOLLO_API_KEY"
    return kind(
        f"Apollo answered {operation} with HTTP {status}; {cure}",
        provider=PROVIDER,
        operation=operation,
        status=status,
    )


def _window_words(seconds: float, limit: int) -> str:
    unit = {60.0: "minute", 3600.0: "hour", 86400.0: "day"}.get(seconds, f"{seconds:g} s")
    each = f"an {unit}" if unit == "hour" else f"a {unit}"
    return f"unlimited {each}" if limit >= UNLIMITED else f"{limit} {each}"
