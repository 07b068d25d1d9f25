#!/bin/sh
# Deploys Antaeus and its payment service to the cluster of KUBECONFIG, and waits for them.
cd "$(dirname "$0")" && exec make deploy ENV=tinjis
