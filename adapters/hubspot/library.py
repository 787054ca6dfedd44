"""hubspot-api-client, unchanged, on our own HTTP session.

The library builds paths, queries, form bodies and headers; each of its API objects keeps a urllib3 PoolManager of its
own in `api_client.rest_client.pool_manager`. One Transport takes the place of them all, so that every request has
time-outs, every answer is bounded, no redirect is followed, no hidden retry happens, and one pool of connections serves
every group (contracts/hubspot.md 1.3 and 1.4, 2026-11).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapters.http import BoundedSession
from adapters.hubspot.wire import operation_of, versioned

#: (connect, read) of every call. HubSpot gives up by itself after 100 s (524); a batch of 100 takes about one.
TIMEOUT_S = (5.0, 60.0)

#: One method of one of the library's API objects.
Method = Callable[..., "Answer"]


class Answer:
    """An answer read whole, in the shape the library's REST layer expects of urllib3's."""

    __slots__ = ("data", "headers", "operation", "reason", "status")

    def __init__(self, *, operation: str, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.operation = operation
        self.status = status
        self.reason = ""
        self.data = data
        self.headers = headers


class RefusedAnswer(Exception):  # noqa: N818  (an answer, not yet an error: the client sorts it by remedy)
    """An answer outside 200 to 299.

    Raised below the library, whose ApiException is a different class in each group and which raises
    UnicodeDecodeError instead where an error page is not UTF-8 (contracts/hubspot.md 1.3).
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


class Transport:
    """Stands where the library keeps its PoolManager."""

    def __init__(self, session: BoundedSession) -> None:
        self._session = session

    def request(
        self,
        method: str,
        url: str,
        *,
        body: str | None = None,
        fields: Sequence[tuple[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = None,
        preload_content: bool = True,
        encode_multipart: bool = False,
    ) -> Answer:
        del preload_content, encode_multipart  # always read whole, never multipart
        has_body = method == "POST"
        path = versioned(url.removeprefix(self._session.base_url))
        response = self._session.request(
            method,
            path,
            params=None if has_body else fields,
            data=(body if body is not None else fields) if has_body else None,
            headers=headers,
            timeout=TIMEOUT_S if timeout is None else (timeout.connect_timeout, timeout.read_timeout),
        )
        answer = Answer(
            operation=operation_of(method, path),
            status=response.status_code,
            data=response.content,
            headers=response.headers,
        )
        if not 200 <= answer.status <= 299:
            raise RefusedAnswer(answer)
        return answer


class Library:
    """One held API object per group; each dotted access of the library would build a new one with new connections."""

    def __init__(self, session: BoundedSession) -> None:
        from hubspot import HubSpot  # 0.1 s and 400 modules: only where a HubSpot is talked to

        self._transport = Transport(session)
        levels = {name: logging.getLogger(name).level for name in ("urllib3", "hubspot")}
        client = HubSpot(host=session.base_url, api_factory=self._api)
        # The objects group serves contacts and companies alike: one package instead of two.
        basic, batch, search = client.crm.objects.basic_api, client.crm.objects.batch_api, client.crm.objects.search_api
        self.list: Method = basic.get_page
        self.read_one: Method = basic.get_by_id
        self.read: Method = batch.read
        self.update: Method = batch.update
        self.search: Method = search.do_search
        self.properties: Method = client.crm.properties.core_api.get_all
        self.token: Method = client.oauth.tokens_api.create
        self._any = basic.api_client
        for name, level in levels.items():  # each Configuration resets urllib3's to WARNING
            logging.getLogger(name).setLevel(level)

    def account(self, **kwargs: Any) -> Any:
        """GET the account's details, for which the library has no method."""
        return self._any.call_api(
            "/account-info/v3/details", "GET", auth_settings=["oauth2"], response_types_map={}, **kwargs
        )

    def _api(self, package: Any, name: str, config: Mapping[str, Any]) -> Any:
        configuration = package.Configuration()
        configuration.host = config["host"]
        # The pool manager that is replaced below would be the only one to use it; 0 says what is true.
        configuration.retries = 0
        api_client = package.ApiClient(configuration=configuration)
        api_client.rest_client.pool_manager = self._transport
        api_client.user_agent = "crm-sync/0.1 (hubspot-api-client)"
        return getattr(package, name)(api_client=api_client)
