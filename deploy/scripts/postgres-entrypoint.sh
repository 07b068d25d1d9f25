#!/bin/sh
# A small part of the entry point of the official PostgreSQL image: a new folder gets a cluster, a password, a database
# and the *.sql of /docker-entrypoint-initdb.d; then the server runs. For development only.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?is missing}"
  user=${POSTGRES_USER:-postgres}
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  initdb --pgdata="$PGDATA" --username="$user" --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 --locale=C
  : >/tmp/password
  printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  export PGPASSWORD="$POSTGRES_PASSWORD" PGUSER="$user" PGHOST=/tmp
  pg_ctl --pgdata="$PGDATA" --wait --options="-c listen_addresses='' -c unix_socket_directories=/tmp" start
  if [ "${POSTGRES_DB:-postgres}" != postgres ]; then
    printf 'CREATE DATABASE :"name";\n' | psql --no-psqlrc --dbname=postgres --set=ON_ERROR_STOP=1 --set=name="$POSTGRES_DB"
  fi
  for file in /docker-entrypoint-initdb.d/*.sql; do
    [ -e "$file" ] || continue
    psql --no-psqlrc --dbname="${POSTGRES_DB:-postgres}" --set=ON_ERROR_STOP=1 --file="$file"
  done
  pg_ctl --pgdata="$PGDATA" --wait --mode=fast stop
fi

exec "$@" -c listen_addresses='*' -c unix_socket_directories=/tmp
