#!/bin/sh
# Builds every image; with REGISTRY=host/path also pushes them.
cd "$(dirname "$0")" && exec make images push
