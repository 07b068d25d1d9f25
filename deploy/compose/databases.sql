-- A database a service, in the one small server for development.
CREATE DATABASE invoices;
CREATE DATABASE payments;
