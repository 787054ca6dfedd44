"""The files under `suppress.lists`: read beside the configuration, and imported when it is applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crm_sync.bootstrap import App
from crm_sync.config.loader import folder
from crm_sync.config.model import Config
from crm_sync.config.problems import Problem, Severity
from crm_sync.config.text import Document
from crm_sync.errors import ConfigError
from crm_sync.mapping.suppress_lists import MAX_LIST_BYTES, Listed, UnreadableListError, read_list

_NOTHING = "nothing here is an e-mail address, domain, LinkedIn page, record id or phone number with its country code."

Lists = Mapping[str, Listed]


def read_lists(app: App, config: Config, document: Document) -> tuple[Lists, list[Problem]]:
    """Every list that can be read, and what is wrong with each: lines in which nobody is recognised are warnings."""
    lists: dict[str, Listed] = {}
    problems: list[Problem] = []
    for position, name in enumerate(config.suppress.lists):
        try:
            lists[name] = read_one(app, config, name)
        except OSError:
            problems.append(
                document.problem(
                    ("suppress", "lists", position),
                    f'the file "{name}" cannot be read beside the configuration.',
                    "It is a CSV file, or has one e-mail, domain, LinkedIn page, record id or phone to a line.",
                )
            )
        except UnreadableListError as error:
            problems.append(Problem(file=name, line=error.line, column=1, path="", message=f"{error.message}."))
        else:
            problems += unknown_lines(name, lists[name])
    return lists, problems


def read_one(app: App, config: Config, name: str) -> Listed:
    """
    Raises:
        OSError, UnreadableListError: nothing of the list counts.
    """
    content = folder(app.config_file.parent, at_most=MAX_LIST_BYTES)(name)
    if len(content) > MAX_LIST_BYTES:
        raise UnreadableListError(1, f"a list may have at most {MAX_LIST_BYTES >> 20} MiB; split it in several")
    return read_list(content, crms_of(config))


def crms_of(config: Config) -> dict[str, str]:
    return {crm.name: crm.type for crm in config.crms.values()}


def unknown_lines(name: str, listed: Listed) -> Iterator[Problem]:
    """A line's content is never shown: it may hold somebody's name."""
    for line in listed.unknown:
        yield Problem(file=name, line=line, column=1, path="", message=_NOTHING, severity=Severity.WARNING)
    more = listed.unknown_count - len(listed.unknown)
    if more:
        said = f"{more:,} more lines like that follow."
        yield Problem(
            file=name, line=listed.unknown[-1] + 1, column=1, path="", message=said, severity=Severity.WARNING
        )


def import_lists(app: App, lists: Lists) -> Iterator[str]:
    """Make each list's entries what it has now; a sentence about each."""
    from crm_sync.store.suppressions import list_source

    for name, listed in lists.items():
        change = app.suppressions.replace(list_source(name), listed.identities, now=app.clock.now())
        yield f"{name}: {counted(listed)}; {change.added:,} new, {change.removed:,} taken off."


def forget_others(app: App, config: Config) -> Iterator[str]:
    """Take off the entries of lists that the configuration no longer names; a sentence about each."""
    from crm_sync.store.suppressions import list_source, list_sources

    kept = {list_source(name) for name in config.suppress.lists}
    for source in list_sources(app.store):
        if source not in kept:
            count = app.suppressions.forget(source, now=app.clock.now())
            yield f"{source.removeprefix('list:')} is no longer listed: {count:,} taken off."


def keep_or_import(app: App, config: Config) -> Iterator[str]:
    """For a version applied before: its lists as the files are now, or as last imported where one is gone.

    Raises:
        ConfigError: a list is neither there nor imported; people on it would be looked up.
    """
    from crm_sync.store.suppressions import list_source

    lists: dict[str, Listed] = {}
    for name in config.suppress.lists:
        try:
            lists[name] = read_one(app, config, name)
        except (OSError, UnreadableListError) as error:
            held = app.suppressions.in_source(list_source(name))
            if not held:
                raise ConfigError(f"The list {name} cannot be read, and nothing of it is in the database") from error
            yield f"{name} cannot be read: its {held:,} entries stay as they were last imported."
    yield from import_lists(app, lists)


def counted(listed: Listed) -> str:
    """ "3 to leave alone (2 email, 1 domain)"."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in listed.by_kind().items())
    return f"{len(listed.identities):,} to leave alone" + (f" ({kinds})" if kinds else "")
