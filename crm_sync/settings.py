"""Where things are and what unlocks them: environment and .env file -> one frozen value, checked at start."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar, get_args

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from crm_sync import crash
from crm_sync.errors import ConfigError

PREFIX = "CRM_SYNC_"
#: Addresses of notices, by names that the admin chooses: `tell: env:CRM_SYNC_NOTIFY_OPS`.
NOTIFY_PREFIX = f"{PREFIX}NOTIFY_"

T = TypeVar("T", bound="_Group")


class _Group(BaseSettings):
    model_config = SettingsConfigDict(
        # An editor on Windows may begin a file with a byte order mark.
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        env_file_encoding="utf-8-sig",
    )


class Settings(_Group):
    """The settings that are there whatever the configuration names."""

    database_url: str = "sqlite:///crm_sync.db"
    secret_key: SecretStr = SecretStr("")
    broker_url: SecretStr = SecretStr("")
    state_file: str = ""
    public_url: str = ""
    trusted_proxies: int = Field(0, ge=0)
    apollo_api_key: SecretStr = SecretStr("")
    apollo_url: str = "https://api.apollo.io/api/v1"
    apollo_auth: Literal["header", "body"] = "header"
    slack_url: SecretStr = SecretStr("")
    mail_url: SecretStr = SecretStr("")
    metrics_token: SecretStr = SecretStr("")
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    sentry_dsn: SecretStr = SecretStr("")
    otlp_endpoint: str = ""


class SalesforceSettings(_Group):
    """One Salesforce org. Which of them are needed depends on `auth`, see `missing`."""

    url: str = ""
    auth: Literal["client_credentials", "jwt", "password", "session"] = "client_credentials"
    consumer_key: str = ""
    consumer_secret: SecretStr = SecretStr("")
    private_key_file: str = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    security_token: SecretStr = SecretStr("")
    session_id: SecretStr = SecretStr("")

    def missing(self) -> list[str]:
        needed = {
            "client_credentials": ("url", "consumer_key", "consumer_secret"),
            "jwt": ("url", "consumer_key", "private_key_file", "username"),
            "password": ("url", "username", "password"),
            "session": ("url", "session_id"),
        }[self.auth]
        return [name for name in needed if not _shown(getattr(self, name))]


class HubSpotSettings(_Group):
    """One HubSpot portal: a service key or private-app token, or the three of an OAuth app."""

    url: str = "https://api.hubapi.com"
    token: SecretStr = SecretStr("")
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    refresh_token: SecretStr = SecretStr("")

    def missing(self) -> list[str]:
        oauth = ("client_id", "client_secret", "refresh_token")
        if _shown(self.token):
            return []
        if any(_shown(getattr(self, name)) for name in oauth):
            return [name for name in oauth if not _shown(getattr(self, name))]
        return ["token"]


CrmSettings = SalesforceSettings | HubSpotSettings
_GROUPS: dict[str, type[SalesforceSettings] | type[HubSpotSettings]] = {
    "salesforce": SalesforceSettings,
    "hubspot": HubSpotSettings,
}


def load_settings(env_file: Path | None) -> Settings:
    """Environment first, then `env_file`.

    Raises:
        ConfigError: a value that cannot be; every one is named, none is shown.
    """
    return _load(Settings, PREFIX, env_file)


def load_crm_settings(name: str, crm_type: str, env_file: Path | None) -> CrmSettings:
    """The group of the CRM called `name` in the configuration: CRM_SYNC_<NAME>_…"""
    return _load(_GROUPS[crm_type], crm_prefix(name), env_file)


def crm_prefix(name: str) -> str:
    """salesforce_eu -> CRM_SYNC_SALESFORCE_EU_"""
    return f"{PREFIX}{re.sub(r'[^A-Z0-9]', '_', name.upper())}_"


def setting_names(crms: Iterable[tuple[str, str]]) -> set[str]:
    """Every variable this installation may have set; `crms` are (name, type)."""
    names = {PREFIX + field.upper() for field in Settings.model_fields}
    for name, crm_type in crms:
        names |= {crm_prefix(name) + field.upper() for field in _GROUPS[crm_type].model_fields}
    return names


def unknown_settings(crms: Iterable[tuple[str, str]], env_file: Path | None) -> list[str]:
    """Sentences about CRM_SYNC_ variables nobody reads: usually a typing error. Those of a CRM that the configuration
    does not use have a name as well."""
    known = setting_names([*crms, *((kind, kind) for kind in _GROUPS)]) | {crash.SETTING}
    sentences = []
    for name in sorted(_set_names(env_file) - known):
        if name.startswith(NOTIFY_PREFIX):
            continue
        near = get_close_matches(name, known, n=1)
        sentences.append(f"{name} is set and no setting has that name" + (f"; did you mean {near[0]}?" if near else ""))
    return sentences


def load_notify_settings(env_file: Path | None) -> dict[str, SecretStr]:
    """Name -> address of every CRM_SYNC_NOTIFY_… that is set.

    Raises:
        ConfigError: the file cannot be read.
    """
    from dotenv import dotenv_values

    found: dict[str, str | None] = {}
    if env_file is not None:
        _names_in(env_file)
        found |= dotenv_values(env_file, encoding="utf-8-sig")
    found |= os.environ
    return {
        name.upper(): SecretStr(value)
        for name, value in found.items()
        if name.upper().startswith(NOTIFY_PREFIX) and value
    }


def values_of(group: Settings | CrmSettings, prefix: str) -> dict[str, str]:
    """Setting -> its value. Secrets are in it: it is for comparing, and never for showing."""
    values = {prefix + field.upper(): getattr(group, field) for field in type(group).model_fields}
    return {name: _shown(value) if isinstance(value, SecretStr) else str(value) for name, value in values.items()}


def is_any_set(kind: str, env_file: Path | None) -> bool:
    """Whether any setting of the CRM named like its type is there, be it in the environment or in `env_file`.

    Raises:
        ConfigError: the file cannot be read.
    """
    return bool(_set_names(env_file) & {crm_prefix(kind) + field.upper() for field in _GROUPS[kind].model_fields})


def _set_names(env_file: Path | None) -> set[str]:
    names = set(os.environ)
    if env_file is not None:
        names |= _names_in(env_file)
    return {name.upper() for name in names if name.upper().startswith(PREFIX)}


def _names_in(env_file: Path) -> set[str]:
    """The names that the file sets.

    Raises:
        ConfigError: it cannot be read, or has lines that are no settings; one sentence for each.
    """
    from dotenv.parser import parse_stream

    try:
        text = env_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{env_file} is not UTF-8 text; save it with that encoding") from None
    except IsADirectoryError:
        raise ConfigError(f"{env_file} is a folder; the settings stand in a file of that name") from None
    except OSError as error:
        raise ConfigError(f"{env_file} cannot be read ({error.strerror}); check its owner and rights") from None
    lines = list(parse_stream(io.StringIO(text)))
    bad = [
        f"{env_file}, line {line.original.line}: no NAME=value; mend it, or begin it with #"
        for line in lines
        if line.error
    ]
    if bad:
        raise ConfigError("\n".join(bad))
    return {line.key for line in lines if line.key}


def _load(group: type[T], prefix: str, env_file: Path | None) -> T:
    if env_file is not None:
        _names_in(env_file)
    try:
        return group(_env_prefix=prefix, _env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            field = str(problem["loc"][0])
            choices = get_args(group.model_fields[field].annotation)
            hint = f"; write one of: {', '.join(map(str, choices))}" if choices else f": {problem['msg']}"
            lines.append(f"{prefix}{field.upper()} has a value that cannot be{hint}")
        raise ConfigError("\n".join(lines)) from None


def _shown(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
