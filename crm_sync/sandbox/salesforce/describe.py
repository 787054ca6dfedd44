"""Describe answers in the service's shape."""

from __future__ import annotations

from collections.abc import Mapping

from crm_sync.sandbox.salesforce.schema import Choice, Field, SObject

_ID_LOOKUPS = ("Id", "Email")
#: Flags that are the same in the short (global) and the long describe of every object here.
_FLAGS = {
    "activateable": False,
    "associateEntityType": None,
    "associateParentEntity": None,
    "createable": True,
    "custom": False,
    "customSetting": False,
    "deepCloneable": False,
    "deletable": True,
    "deprecatedAndHidden": False,
    "feedEnabled": True,
    "hasSubtypes": False,
    "isInterface": False,
    "isSubtype": False,
    "layoutable": True,
    "mergeable": True,
    "mruEnabled": True,
    "queryable": True,
    "replicateable": True,
    "retrieveable": True,
    "searchable": True,
    "triggerable": True,
    "undeletable": True,
    "updateable": True,
}
_LONG_ONLY = {
    "actionOverrides": [],
    "compactLayoutable": True,
    "defaultImplementation": None,
    "extendedBy": None,
    "extendsInterfaces": None,
    "implementedBy": None,
    "implementsInterfaces": None,
    "listviewable": None,
    "lookupLayoutable": None,
    "namedLayoutInfos": [],
    "networkScopeFieldName": None,
    "searchLayoutable": True,
    "sobjectDescribeOption": "FULL",
}
_MASTER_RECORD_TYPE = "012000000000000AAA"


def global_list(objects: Mapping[str, SObject], version: str) -> dict[str, object]:
    return {
        "encoding": "UTF-8",
        "maxBatchSize": 200,
        "sobjects": [_summary(sobject, version) for sobject in objects.values()],
    }


def basic(sobject: SObject, version: str) -> dict[str, object]:
    """The answer of GET sobjects/<Type>."""
    return {"objectDescribe": _summary(sobject, version), "recentItems": []}


def full(objects: Mapping[str, SObject], name: str, version: str, host: str) -> dict[str, object]:
    """The answer of GET sobjects/<Type>/describe; `host` is the scheme and host of user-interface links."""
    sobject = objects[name]
    urls = _urls(name, version) | {
        "uiDetailTemplate": f"{host}/{{ID}}",
        "uiEditTemplate": f"{host}/{{ID}}/e",
        "uiNewRecord": f"{host}/{sobject.prefix}/e",
    }
    return (
        _summary(sobject, version)
        | _LONG_ONLY
        | {
            "childRelationships": _child_relationships(objects, name),
            "fields": [_field(field) for field in sobject.fields],
            "recordTypeInfos": [
                {
                    "active": True,
                    "available": True,
                    "defaultRecordTypeMapping": True,
                    "developerName": "Master",
                    "master": True,
                    "name": "Master",
                    "recordTypeId": _MASTER_RECORD_TYPE,
                    "urls": {"layout": f"{urls['layouts']}/{_MASTER_RECORD_TYPE}"},
                }
            ],
            "supportedScopes": [
                {"label": f"All {sobject.plural.lower()}", "name": "everything"},
                {"label": f"My {sobject.plural.lower()}", "name": "mine"},
            ],
            "urls": urls,
        }
    )


def _summary(sobject: SObject, version: str) -> dict[str, object]:
    return _FLAGS | {
        "keyPrefix": sobject.prefix,
        "label": sobject.label,
        "labelPlural": sobject.plural,
        "name": sobject.name,
        "urls": _urls(sobject.name, version),
    }


def _urls(name: str, version: str) -> dict[str, str]:
    root = f"/services/data/v{version}/sobjects/{name}"
    return {
        "compactLayouts": f"{root}/describe/compactLayouts",
        "rowTemplate": f"{root}/{{ID}}",
        "approvalLayouts": f"{root}/describe/approvalLayouts",
        "listviews": f"{root}/listviews",
        "describe": f"{root}/describe",
        "quickActions": f"{root}/quickActions",
        "layouts": f"{root}/describe/layouts",
        "sobject": root,
    }


def _child_relationships(objects: Mapping[str, SObject], parent: str) -> list[dict[str, object]]:
    return [
        {
            "cascadeDelete": False,
            "childSObject": child.name,
            "deprecatedAndHidden": False,
            "field": field.name,
            "junctionIdListNames": [],
            "junctionReferenceTo": [],
            "relationshipName": field.children,
            "restrictedDelete": False,
        }
        for child in objects.values()
        for field in child.fields
        if parent in field.refers_to and field.name != "MasterRecordId"
    ]


def _field(field: Field) -> dict[str, object]:
    text = field.soap_type == "xsd:string"
    polymorphic = len(field.refers_to) > 1
    return {
        "aggregatable": field.type not in ("boolean", "address") and field.filterable,
        "aiPredictionField": False,
        "autoNumber": False,
        # Three bytes a character: `length` counts characters (contracts/salesforce.md 2.6).
        "byteLength": field.length * 3 if text else field.length,
        "calculated": False,
        "calculatedFormula": None,
        "cascadeDelete": False,
        "caseSensitive": False,
        "compoundFieldName": field.compound,
        "controllerName": None,
        "createable": field.createable,
        "custom": field.custom,
        "defaultValue": field.default,
        "defaultValueFormula": None,
        "defaultedOnCreate": field.defaulted,
        "dependentPicklist": False,
        "deprecatedAndHidden": False,
        "digits": field.digits,
        "displayLocationInDecimal": False,
        "encrypted": False,
        "externalId": False,
        "extraTypeInfo": field.extra,
        "filterable": field.filterable,
        "filteredLookupInfo": None,
        "formulaTreatNullNumberAsZero": False,
        "groupable": field.groupable,
        "highScaleNumber": False,
        "htmlFormatted": False,
        "idLookup": field.name in _ID_LOOKUPS,
        "inlineHelpText": None,
        "label": field.label,
        "length": field.length,
        "mask": None,
        "maskType": None,
        "name": field.name,
        "nameField": field.name_field,
        "namePointing": polymorphic,
        "nillable": field.nillable,
        "permissionable": field.permissionable,
        "picklistValues": [_choice(choice, field.default) for choice in field.choices],
        "polymorphicForeignKey": polymorphic,
        "precision": field.precision,
        "queryByDistance": field.type == "address",
        "referenceTargetField": None,
        "referenceTo": list(field.refers_to),
        "relationshipName": field.relationship,
        "relationshipOrder": None,
        "restrictedDelete": False,
        "restrictedPicklist": field.restricted,
        "scale": field.scale,
        "searchPrefilterable": field.prefilterable,
        "soapType": field.soap_type,
        "sortable": field.sortable,
        "type": field.type,
        "unique": False,
        "updateable": field.updateable,
        "writeRequiresMasterRead": False,
    }


def _choice(choice: Choice, default: str | bool | None) -> dict[str, object]:
    return {
        "active": choice.active,
        "defaultValue": choice.value == default,
        "label": choice.label,
        "validFor": None,
        "value": choice.value,
    }
