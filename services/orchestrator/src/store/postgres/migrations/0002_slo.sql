-- Minutes of the objectives. For seconds the counts are sets of 60 bits, for events they are counts.
CREATE TABLE slo_buckets (
    slo    text   NOT NULL,
    minute bigint NOT NULL,
    seen   bigint NOT NULL,
    good   bigint NOT NULL,
    PRIMARY KEY (minute, slo)
);
