#!/bin/sh
# Looks at them from outside: three unpaid invoices, a pay call, and all are paid on every replica.
cd "$(dirname "$0")" && exec make test ENV=invoice-app
