"""Logging in: OAuth client credentials, JWT bearer and password, SOAP login(), and what becomes of a token."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape, unescape

from crm_sync.sandbox.salesforce import ids
from crm_sync.sandbox.salesforce.errors import RequestCode, RequestError

ORG_ID = ids.encode("00D", 0)
#: The user the integration runs as, a colleague who edits records by hand, and the queue leads are assigned to.
INTEGRATION_USER = ids.encode(ids.USER_PREFIX, 0)
HUMAN_USER = ids.encode(ids.USER_PREFIX, 1)
LEAD_QUEUE = ids.encode("00G", 0)

#: SOAP login() is absent from this API version on (contracts/salesforce.md 1.1).
_FIRST_VERSION_WITHOUT_SOAP_LOGIN = 65
#: A JWT may be valid for three minutes at most; some seconds for clocks that differ.
_JWT_SECONDS, _JWT_LEEWAY_SECONDS = 180, 15
_AUDIENCE = re.compile(r"https://(?:[a-z0-9-]+\.)+salesforce\.com\Z")
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the sandbox's one user and one connected app have to show. `jwt_public_key` is PEM, "" switches the
    grant off."""

    consumer_key: str = "crm-sync-sandbox-consumer-key"
    consumer_secret: str = "crm-sync-sandbox-consumer-secret"  # noqa: S105  a made-up org's
    username: str = "integration@sandbox.example"
    password: str = "crm-sync-sandbox-password"  # noqa: S105
    security_token: str = "SANDBOXTOKEN"  # noqa: S105
    jwt_public_key: str = ""


class OAuthError(Exception):
    """The token endpoint's refusal: {error, error_description}."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.status = status
        self.body = {"error": error, "error_description": description}


@dataclass(slots=True)
class _Token:
    expires_at: float
    calls_left: int | None


class Logins:
    """Gives out tokens and takes them back."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        token_seconds: float,
        token_calls: int | None,
        one_session: bool,
        now: Callable[[], float],
    ) -> None:
        """`token_calls`: a token serves that many requests, None for any number. `one_session`: a new login ends
        the sessions before it."""
        self._credentials = credentials
        self._token_seconds = token_seconds
        self._token_calls = token_calls
        self._one_session = one_session
        self._now = now
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.Lock()
        self.count = 0

    def oauth(self, form: Mapping[str, str], authorization: str, base_url: str) -> dict[str, str]:
        """Answer POST /services/oauth2/token.

        Raises:
            OAuthError: in the service's shape.
        """
        grant = form.get("grant_type", "")
        if grant == "client_credentials":
            self._check_app(*_basic(authorization, form))
        elif grant == "password":
            self._check_app(form.get("client_id", ""), form.get("client_secret", ""))
            if not self._is_user(form.get("username", ""), form.get("password", "")):
                raise OAuthError("invalid_grant", "authentication failure")
        elif grant == _JWT_GRANT:
            self._check_assertion(form.get("assertion", ""), base_url)
        else:
            raise OAuthError("unsupported_grant_type", "grant type not supported")
        token = self._issue()
        answer = {
            "access_token": token,
            "instance_url": base_url,
            "id": f"https://login.salesforce.com/id/{ORG_ID}/{INTEGRATION_USER}",
            "token_type": "Bearer",
            "scope": "api",
        }
        if grant != _JWT_GRANT:
            answer["issued_at"] = str(int(self._now() * 1000))
            answer["signature"] = base64.b64encode(hmac.digest(b"sandbox", token.encode(), "sha256")).decode()
        return answer

    def soap(self, body: str, version: str, base_url: str) -> tuple[int, str]:
        """Answer SOAP login(): status and XML. The password is followed by the security token."""
        if float(version) >= _FIRST_VERSION_WITHOUT_SOAP_LOGIN:
            return 500, _fault(
                "UNSUPPORTED_API_VERSION",
                f"SOAP login() is not available in API version {version}; use OAuth, or version 64.0 or earlier.",
            )
        username, password = (_element(body, name) for name in ("username", "password"))
        if username is None or password is None:
            return 500, _fault("UNKNOWN_EXCEPTION", "The crm-sync sandbox simulates login() only.")
        if not self._is_user(username, password):
            return 500, _fault(
                "INVALID_LOGIN", "Invalid username, password, security token; or user locked out.", "LoginFault"
            )
        token = self._issue()
        server_url = f"{base_url}/services/Soap/u/{version}/{ORG_ID[:15]}"
        return 200, _envelope(
            "<loginResponse><result>"
            f"<metadataServerUrl>{server_url.replace('/u/', '/m/')}</metadataServerUrl>"
            "<passwordExpired>false</passwordExpired><sandbox>true</sandbox>"
            f"<serverUrl>{server_url}</serverUrl><sessionId>{token}</sessionId><userId>{INTEGRATION_USER}</userId>"
            f"<userInfo><organizationId>{ORG_ID}</organizationId><organizationName>crm-sync sandbox</organizationName>"
            f"<userId>{INTEGRATION_USER}</userId><userName>{escape(self._credentials.username)}</userName></userInfo>"
            "</result></loginResponse>"
        )

    def check(self, authorization: str) -> None:
        """Admit one request.

        Raises:
            RequestError: 401; the session is unknown, expired, used up or ended.
        """
        scheme, _, token = authorization.partition(" ")
        if authorization and scheme.lower() not in ("bearer", "oauth"):
            raise RequestError(
                401, RequestCode.INVALID_AUTH_HEADER, "INVALID_HEADER_TYPE", headers={"WWW-Authenticate": "Token"}
            )
        with self._lock:
            known = self._tokens.get(token.strip())
            if known is not None and known.expires_at > self._now() and known.calls_left != 0:
                if known.calls_left is not None:
                    known.calls_left -= 1
                return
            self._tokens.pop(token.strip(), None)
        raise RequestError(
            401,
            RequestCode.INVALID_SESSION_ID,
            "Session expired or invalid",
            headers={"WWW-Authenticate": "Token"},
        )

    def expire(self) -> None:
        """End all sessions, as an admin does."""
        with self._lock:
            self._tokens.clear()

    def _issue(self) -> str:
        token = f"{ORG_ID[:15]}!AQ{secrets.token_urlsafe(48).replace('-', '_')}"
        with self._lock:
            if self._one_session:
                self._tokens.clear()
            now = self._now()
            for old in [key for key, known in self._tokens.items() if known.expires_at <= now]:
                del self._tokens[old]
            self._tokens[token] = _Token(now + self._token_seconds, self._token_calls)
            self.count += 1
        return token

    def _check_app(self, key: str, secret: str) -> None:
        if not _same(key, self._credentials.consumer_key):
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if not _same(secret, self._credentials.consumer_secret):
            raise OAuthError("invalid_client", "invalid client credentials")

    def _is_user(self, username: str, password: str) -> bool:
        wanted = self._credentials.password + self._credentials.security_token
        return username.lower() == self._credentials.username.lower() and _same(password, wanted)

    def _check_assertion(self, assertion: str, base_url: str) -> None:
        # Only this grant needs a signature checked; PyJWT comes with simple-salesforce.
        import jwt

        if not self._credentials.jwt_public_key:
            raise OAuthError("invalid_grant", "invalid assertion: this sandbox was started without a JWT public key")
        try:
            # Expiry is checked below against the sandbox's own clock.
            claims = jwt.decode(
                assertion,
                self._credentials.jwt_public_key,
                algorithms=["RS256"],
                options={"verify_exp": False, "verify_aud": False, "require": ["iss", "sub", "aud", "exp"]},
            )
            expires_at = float(claims["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise OAuthError("invalid_grant", "invalid assertion") from None
        if not _same(str(claims["iss"]), self._credentials.consumer_key):
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if str(claims["sub"]).lower() != self._credentials.username.lower():
            raise OAuthError("invalid_grant", "user hasn't approved this consumer")
        if claims["aud"] != base_url and not _AUDIENCE.match(str(claims["aud"])):
            raise OAuthError("invalid_grant", "audience is invalid")
        if not -_JWT_LEEWAY_SECONDS < expires_at - self._now() < _JWT_SECONDS + _JWT_LEEWAY_SECONDS:
            raise OAuthError("invalid_grant", "assertion is expired or valid for more than three minutes")


def _basic(authorization: str, form: Mapping[str, str]) -> tuple[str, str]:
    """The app's key and secret, from HTTP Basic or from the form."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        key, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return key, secret


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _element(xml: str, name: str) -> str | None:
    """The text of one element, whatever its namespace prefix: all that login() needs from its request."""
    match = re.search(rf"<(?:\w+:)?{name}>([^<]*)</", xml)
    return unescape(match.group(1)) if match else None


def _envelope(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns="urn:partner.soap.sforce.com" xmlns:sf="urn:fault.partner.soap.sforce.com"'
        f' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>'
    )


def _fault(code: str, message: str, kind: str = "UnexpectedErrorFault") -> str:
    text = escape(message)
    return _envelope(
        f"<soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {text}</faultstring><detail>"
        f'<sf:{kind} xsi:type="sf:{kind}"><sf:exceptionCode>{code}</sf:exceptionCode>'
        f"<sf:exceptionMessage>{text}</sf:exceptionMessage></sf:{kind}></detail></soapenv:Fault>"
    )
