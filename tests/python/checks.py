"""What schemathesis is told besides the document: a check, and how deep to go. It loads this file."""

import json
import re

import schemathesis

# Requests that a schema cannot tell from those that work: what the rules and the rows in the database decide.
DECIDED_LATER = {"CONSTRAINT", "WHERE_REQUIRED", "TOO_COMPLEX"}
# JSON Schema has no words for "a name of one object is in no other".
CHANGED_TWICE = "is changed twice"

# Components that lead back to themselves, by relations, connectives and negations.
RECURSIVE = re.compile(r"(\.(Filter|UpdateFilter|DeleteFilter|Select|ManyFilter|Many|One)|Operators)$")
# Those among them that are one level; the others stand between two.
LEVEL = re.compile(r"(\.(Filter|UpdateFilter|DeleteFilter|Select)|Operators)$")
PREFIX = "#/components/schemas/"


@schemathesis.check
def described_data_is_accepted(ctx, response, case):
    """What fits the document is no bad request.

    `positive_data_acceptance` knows statuses only, and those of constraints are no fault."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    error = response.json()
    is_sum = error["code"] == "OUT_OF_RANGE" and "$inc" in json.dumps(case.body)
    if error["code"] in DECIDED_LATER or is_sum or CHANGED_TWICE in error["error"]:
        return
    raise AssertionError(f"{error['code']}: {error['error']}")


class Levels:
    """Copies of recursive components that end after some levels: generators take the document as a tree, and the tree
    of eleven tables that all lead to each other does not end."""

    def __init__(self, schemas):
        self.schemas = schemas
        self.copies = {}

    def reference(self, name, level, inside):
        if not RECURSIVE.search(name):
            return {"$ref": PREFIX + name}
        if inside and level == 0:
            return None
        if inside and LEVEL.search(name):
            level -= 1
        copy = f"{name}.{level}"
        if copy not in self.copies:
            self.copies[copy] = {}
            self.copies[copy] = self.cut(self.schemas[name], level, True)
        return {"$ref": PREFIX + copy}

    def cut(self, schema, level, inside=False):
        """The schema without what would be below the last level; None where nothing is left."""
        if isinstance(schema, list):
            items = [self.cut(item, level, inside) for item in schema]
            # Without one of its forms a value would be refused that is not wrong.
            return None if None in items else items
        if not isinstance(schema, dict):
            return schema
        if isinstance(schema.get("$ref"), str):
            return self.reference(schema["$ref"].removeprefix(PREFIX), level, inside)
        cut = {}
        for key, value in schema.items():
            cut[key] = self.cut(value, level, inside)
            if cut[key] is None:
                if key in ("items", "anyOf"):
                    return None
                del cut[key]
        return cut


@schemathesis.hook
def before_load_schema(ctx, raw_schema):
    schemas = raw_schema["components"]["schemas"]
    levels = Levels(schemas)
    for name, schema in list(schemas.items()):
        # Answers are not generated.
        if not RECURSIVE.search(name) and not name.endswith(".Row"):
            schemas[name] = levels.cut(schema, 1)
    for item in raw_schema["paths"].values():
        # A watch is a GET.
        if "post" not in item:
            continue
        content = item["post"]["requestBody"]["content"]["application/json"]
        content["schema"] = levels.cut(content["schema"], 1)
    schemas.update(levels.copies)
