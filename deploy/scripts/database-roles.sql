-- The database of one service and its two roles: the owner, which migrates the schema, and the service, which reads and
-- writes rows and changes no schema. No other role connects. May be run again, also on a database from before. The role
-- that runs it is the server's administrator.
--
--   psql --dbname=postgres --set=database=invoices --set=owner=billing_migrate --set=service=billing \
--     --set=owner_password=… --set=service_password=… --file=database-roles.sql
\set ON_ERROR_STOP on
SELECT format('CREATE ROLE %I', name) FROM (VALUES (:'owner'), (:'service')) AS role (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE :"owner" LOGIN NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
ALTER ROLE :"service" LOGIN NOCREATEDB NOCREATEROLE PASSWORD :'service_password';
-- An administrator who is no superuser gives away only what a role of theirs may have.
GRANT :"owner" TO CURRENT_USER;
SELECT format('CREATE DATABASE %I', :'database')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
ALTER DATABASE :"database" OWNER TO :"owner";
-- By default every role connects to every database and makes temporary tables there.
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"service";

\connect :"database"
ALTER SCHEMA public OWNER TO :"owner";
REVOKE ALL ON SCHEMA public FROM PUBLIC, :"service";
GRANT USAGE ON SCHEMA public TO :"service";
-- Tables that another role has made before.
SELECT format('ALTER TABLE public.%I OWNER TO %I', relname, :'owner') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner <> :'owner'::regrole \gexec
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, :"service";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"service";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO :"service";
-- And those that a migration will make.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"service";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO :"service";
