"""What schemathesis cannot guess: how bodies are written that are neither JSON nor a form. Loaded by SCHEMATHESIS_HOOKS."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    """One line of one object."""
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"


@schemathesis.serializer("application/toml")
def toml(ctx, value):
    """The text as it was generated."""
    return str(value).encode("utf-8", errors="replace")
