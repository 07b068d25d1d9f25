#!/bin/sh
# Shows what would be created; changes nothing.
cd "$(dirname "$0")" && exec make check-manifests ENV=tinjis
