-- What is true of the database as a whole: whose it is (mission), and a row that readiness probes write.
CREATE TABLE installation (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
