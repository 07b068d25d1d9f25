#!/bin/sh
# Looks at them from outside.
cd "$(dirname "$0")" && exec make test ENV=tinjis
