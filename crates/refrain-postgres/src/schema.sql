-- refrain, version 1. Apply it once, as the role that owns the schema, in one transaction:
--     psql -1 -v ON_ERROR_STOP=1 -f schema.sql
-- Leave CREATE SCHEMA out if the schema is there. The nodes' role, here `app`, needs these rights:
--     GRANT USAGE ON SCHEMA refrain TO app;
--     GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA refrain TO app;

CREATE SCHEMA refrain;

-- One row: what all nodes of this store agree on.
CREATE TABLE refrain.meta (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version int4 NOT NULL,
    -- The oldest version whose nodes may go on with these tables. A migration that only adds to them
    -- leaves it.
    oldest_reader int4 NOT NULL,
    -- Part of every address and of every downstream key.
    store uuid NOT NULL,
    -- The longest TTL of a record. With the width of a slot it decides which body table is free.
    retention_ms int8 NOT NULL,
    slot_ms int8 NOT NULL
);

-- One row a process. Its lease is renewed here, and not for each key. The row stays for a day after the
-- lease has lapsed.
CREATE TABLE refrain.session (
    -- Drawn by the client: a sequence may give a number again after a failover.
    id int8 PRIMARY KEY,
    node text NOT NULL,
    lease_until timestamptz NOT NULL,
    dead boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- One row for each piece of background work, so that one node at a time does it.
CREATE TABLE refrain.duty (
    name text PRIMARY KEY,
    held_until timestamptz NOT NULL
);

-- One small row a key. Indexed columns stay as the claim of a volatile operation wrote them, so that
-- completing it is a HOT update.
CREATE TABLE refrain.key (
    -- Half of SHA-256 over the store, the scope and the key.
    address uuid PRIMARY KEY,
    -- The claim's name, made by the client: it makes a repeated claim the same claim, fences the
    -- verdict, and names the body.
    attempt uuid NOT NULL,
    session int8 NOT NULL,
    -- The slot of time after which the row may be swept, if it has expired by then.
    sweep int8 NOT NULL,
    -- Which body table holds the response; -1 for none.
    slot int2 NOT NULL DEFAULT -1,
    -- 0 claimed, 1 claimed durably, 2 interrupted, 3 done.
    state int2 NOT NULL,
    run int4 NOT NULL DEFAULT 1,
    waited boolean NOT NULL DEFAULT false,
    expires_at timestamptz,
    fingerprint bytea NOT NULL,
    request_id text NOT NULL,
    -- The rest is set while a durable claim is open.
    first uuid,
    ttl_ms int8,
    scope bytea,
    key text COLLATE "C",
    checkpoints bytea[]
) WITH (fillfactor = 75);
CREATE INDEX key_sweep ON refrain.key (sweep);
CREATE INDEX key_open ON refrain.key (scope, key) WHERE scope IS NOT NULL;

-- A ring of tables, each for the responses that expire in one slot of time, and truncated after it.
CREATE TABLE refrain.body_00 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_00 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_01 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_01 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_02 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_02 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_03 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_03 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_04 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_04 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_05 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_05 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_06 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_06 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_07 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_07 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_08 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_08 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_09 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_09 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_10 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_10 ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE refrain.body_11 (attempt uuid PRIMARY KEY, address uuid NOT NULL, scope bytea NOT NULL, key text NOT NULL, payload bytea NOT NULL);
ALTER TABLE refrain.body_11 ALTER payload SET STORAGE EXTERNAL;

-- The retention, and an eighth of it rounded up: 24 hours and three.
INSERT INTO refrain.meta (version, oldest_reader, store, retention_ms, slot_ms) VALUES (1, 1, gen_random_uuid(), 86400000, 10800000);
