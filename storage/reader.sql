-- A role that may read studies and change nothing, for the dashboard and `igkd-hpo status`. Run it once, as the owner of
-- the database, before or after the first study:
--
--   psql -d igkd_hpo -f storage/reader.sql
--   psql -d igkd_hpo -c '\password igkd_hpo_reader'
--
-- It reads what there is, and the tables that this owner makes later. It can neither change nor create anything.
CREATE ROLE igkd_hpo_reader LOGIN CONNECTION LIMIT 20;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO igkd_hpo_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO igkd_hpo_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO igkd_hpo_reader;
