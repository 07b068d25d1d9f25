#!/bin/sh
# Takes them away again, with their data.
cd "$(dirname "$0")" && exec make destroy ENV=tinjis
