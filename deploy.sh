#!/bin/sh
# Deploys the invoice-app and its payment-provider to the cluster of KUBECONFIG, and waits for them.
cd "$(dirname "$0")" && exec make deploy ENV=invoice-app
