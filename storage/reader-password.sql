-- The password of that role, from the environment of psql: the containers' database runs both files when it is made.
\getenv password IGKD_HPO_READER_PASSWORD
ALTER ROLE igkd_hpo_reader PASSWORD :'password';
