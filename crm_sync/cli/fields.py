"""fields: what can be mapped."""

from __future__ import annotations

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from crm_sync.bootstrap import App
from crm_sync.cli import render
from crm_sync.cli.setup import TYPES, crm_types
from crm_sync.config.apollo_attributes import attributes
from crm_sync.domain.records import FieldSchema, Value
from crm_sync.errors import ConfigError, CrmSyncError
from crm_sync.ports import Crm, Selection


@click.command()
@click.argument("crm")
@click.argument("object_type", metavar="[OBJECT]", required=False)
@click.option("--search", default="", help="Only names, labels or descriptions with this text.")
@click.option("--writable", is_flag=True, help="Only fields that a mapping can write.")
@click.option("--no-sample", is_flag=True, help="Do not read a record for the sample values.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
@click.pass_obj
def fields(
    app: App,
    crm: str,
    object_type: str | None,
    search: str,
    writable: bool,
    no_sample: bool,
    as_json: bool,
) -> None:
    """What can be mapped: the fields of OBJECT in CRM as they are now, or `fields apollo`: Apollo's attributes."""
    if crm == "apollo":
        _apollo(search, as_json=as_json)
        return
    client = _client(app, crm)
    if object_type is None:
        raise click.UsageError(f"Name an object too: {', '.join(client.object_types())}.")
    schema = client.describe(object_type)
    found = [
        field
        for field in sorted(schema.fields.values(), key=lambda field: field.name)
        if search.casefold() in f"{field.name} {field.label}".casefold() and (field.writable or not writable)
    ]
    sample = {} if no_sample else _sample(client, object_type, [field.name for field in found if field.readable])
    if as_json:
        render.print_json(
            [
                {
                    "name": field.name,
                    "label": field.label,
                    "type": field.kind.value,
                    "native_type": field.native_type,
                    "length": field.length,
                    "writable": field.writable,
                    "why_not": field.why_not,
                    "values": [choice.value for choice in field.choices if choice.active],
                    "sample": sample.get(field.name),
                }
                for field in found
            ]
        )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Field", "Label", "Type", "Can be written", "Sample"):
        table.add_column(name, overflow="fold")
    for field in found:
        table.add_row(
            escape(field.name),
            escape(field.label),
            _type(field),
            "yes" if field.writable else f"no: {escape(field.why_not)}",
            escape(render.shown(sample.get(field.name)))[:40],
            style="" if field.writable else "dim",
        )
    out = render.console()
    out.print(table)
    out.print(f"{len(found)} of {len(schema.fields)} fields of {object_type} in {escape(crm)}")


def _type(field: FieldSchema) -> str:
    if field.choices:
        return f"{field.kind.value} ({sum(choice.active for choice in field.choices)} values)"
    return f"{field.kind.value} ({field.length})" if field.length else field.kind.value


def _client(app: App, name: str) -> Crm:
    """
    Raises:
        ConfigError: neither the configuration nor crm-sync has a CRM of that name.
    """
    known = dict(zip(TYPES, TYPES, strict=True)) | crm_types(app)
    if name not in known:
        raise ConfigError(f"There is no CRM {name}; say {', '.join(known)}, or apollo for Apollo's attributes")
    return app.crm(name, known[name])


def _sample(client: Crm, object_type: str, names: list[str]) -> dict[str, Value]:
    """One record's values, from the first record there is; where it cannot be read, the fields are shown without."""
    if not names:
        return {}
    selection = Selection(object_type=object_type, fields=tuple(names[:1]))
    try:
        page = next(iter(client.select(selection, page_size=1)), None)
        if page is None or not page.records:
            return {}
        record = client.read(object_type, [page.records[0].ref.id], names)[0]
    except CrmSyncError as error:
        click.echo(f"No sample values: {error}", err=True)
        return {}
    return dict(record.values) if record is not None else {}


def _apollo(search: str, *, as_json: bool) -> None:
    wanted = search.casefold()
    found = [
        attribute for attribute in attributes() if wanted in f"{attribute.path} {attribute.description}".casefold()
    ]
    if as_json:
        names = ("path", "kind", "sample", "description", "vocabulary")
        render.print_json([{name: getattr(attribute, name) for name in names} for attribute in found])
        return
    if not found:
        raise ConfigError(f"No Apollo attribute has {search} in its name or description")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Attribute", "Type", "Sample", "Meaning"):
        table.add_column(name, overflow="fold")
    for attribute in found:
        table.add_row(
            attribute.path, attribute.kind.value, escape(render.shown(attribute.sample)), attribute.description
        )
    render.console().print(table)
