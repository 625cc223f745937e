-- Minutes of the objectives. For seconds the counts are sets of 60 bits, for events they are counts.
CREATE TABLE slo_buckets (
    slo    TEXT    NOT NULL,
    minute INTEGER NOT NULL,
    seen   INTEGER NOT NULL,
    good   INTEGER NOT NULL,
    PRIMARY KEY (minute, slo)
) STRICT, WITHOUT ROWID;
