"""Write docs/run-directory.md and docs/run.schema.json from `benchmark.store.schema`."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from benchmark.store.folder import SCHEMA_VERSION
from benchmark.store.schema.run_files import FILES
from benchmark.store.schema.run_json import Run
from flexiact.terminal.cli import OneLineParser, command

PAGE, SCHEMA = "run-directory.md", "run.schema.json"
_DOCS = Path(__file__).parents[2] / "docs"
_INTRO = f"""# The run directory

Everything that a run leaves behind, key by key. This page and [a JSON Schema]({SCHEMA}) are made from
`benchmark/store/schema/` by `python -m benchmark.store.contract`. Tests hold both to it, and it to a run. The JSON
Schema is that of `run.json`; those of rows and of the small JSON files are under `$defs`.

This is schema version {SCHEMA_VERSION}. It is raised when something changes its meaning; the harness and the reports
refuse other versions.

`null` means that there is no such thing, that nobody knows it, or that it failed. The key's meaning says which, and
`status` and `error` say why. A missing key means that the entry is of another kind: a bound has no `method_id`, a case
of files no `wrong_action`. A planned video that was not made yet has a row with status `missing` in samples.parquet,
and none in scores.parquet; neither counts as a failure. In the two tables `null` is Parquet's null. NaN and infinity
stand nowhere: a metric that gives one has failed.

Every file appears whole or not at all, so a run can be killed anywhere and started again. JSON objects have one more
key, `seal`: the SHA-256 of their other keys in canonical JSON (sorted keys, no spaces, ASCII). The headers of
safetensors files have a `seal` of header and tensors. [Damage](reliability.md) is found by them. A run that
was made before a key was added lacks it; reports name what they cannot do without.
"""
_AFTER_FILES = """
XX are the first two digits of the file's name, so that a folder holds one in 256 files of its kind: some 4,000 in a run
of a million videos. To look at videos by hand, open `previews/*/*.mp4`. Their keys stand in `samples.parquet`, and the
report links them. The command adds its report in `report/`; `.lock` keeps a second run out.
"""
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "`null`",
}


def json_schema() -> dict[str, Any]:
    """JSON Schema of run.json; the schemas of table rows and of the small JSON files are under `$defs`."""
    contents = dict.fromkeys(file.content for file in FILES if file.content)
    _, schema = models_json_schema([(content, "serialization") for content in contents])
    root = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": f"#/$defs/{Run.__name__}"}
    return root | {"$defs": schema["$defs"]}


def page() -> str:
    """Text of docs/run-directory.md."""
    definitions = json_schema()["$defs"]
    parts = [_INTRO, "## Files\n"]
    parts += [_item(f"`{file.path}`", file.meaning + (_see(file.content) if file.content else "")) for file in FILES]
    parts.append(_AFTER_FILES)
    done: list[str] = []
    for content in dict.fromkeys(file.content for file in FILES if file.content):
        parts += _sections(content.__name__, definitions, done)
    return "\n".join(parts)


def _sections(name: str, definitions: Mapping[str, Any], done: list[str]) -> Iterator[str]:
    """Heading and list of keys for an object, then for the objects in it that have no section yet."""
    if name in done or "properties" not in definitions[name]:
        return
    done.append(name)
    entry = definitions[name]
    yield f"## {name}\n\n{textwrap.fill(' '.join(entry['description'].split()), 120)}\n"
    for key, value in entry["properties"].items():
        unit = f", {value['unit']}" if "unit" in value else ""
        yield _item(f"`{key}` ({_kind(value)}{unit})", value["description"])
    yield ""
    for inner in _named(entry["properties"]):
        yield from _sections(inner, definitions, done)


def _item(head: str, meaning: str) -> str:
    text = f"- {head}: {' '.join(meaning.split())}"
    return textwrap.fill(text, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _see(content: type) -> str:
    return f" Keys: [{content.__name__}](#{content.__name__.lower()})."


def _kind(schema: Mapping[str, Any]) -> str:
    """Kind of a value, in words."""
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(_kind(option) for option in options)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "any JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("prefixItems")
        return f"list of {len(items)} {_kind(items[0])}s" if items else f"list of {_kind(schema['items'])}s"
    if schema.get("type") == "object":
        inner = schema["additionalProperties"]
        return "object, any JSON by name" if inner is True else f"object, {_kind(inner)} by name"
    return _WORDS[schema["type"]]


def _named(value: Any) -> Iterator[str]:
    """Names of all definitions that a schema refers to, in the schema's order."""
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"].rpartition("/")[2]
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def _write(options: argparse.Namespace) -> None:
    (_DOCS / PAGE).write_text(page(), encoding="utf-8")
    (_DOCS / SCHEMA).write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")


main = command(lambda: OneLineParser(prog="python -m benchmark.store.contract", description=__doc__), _write)

if __name__ == "__main__":
    sys.exit(main())
