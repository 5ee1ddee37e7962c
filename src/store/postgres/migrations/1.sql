-- Version 1. The schema sekali is there before; the version is set behind the last migration.

CREATE TABLE sekali.store (
    one     integer PRIMARY KEY CHECK (one = 1),
    version integer NOT NULL,
    secret  uuid NOT NULL -- keys the digests of payloads
);
INSERT INTO sekali.store VALUES (1, 0, gen_random_uuid());

CREATE TABLE sekali.topics (
    topic            text COLLATE "C" PRIMARY KEY,
    last_seq         bigint NOT NULL, -- what was accepted
    duplicates       bigint NOT NULL,
    conflicts        bigint NOT NULL,
    last_received_at bigint NOT NULL  -- microseconds since 1970, UTC
) WITH (fillfactor = 50);             -- a row changes with each commit; there is room for the next one beside it

CREATE TABLE sekali.events (
    topic       text COLLATE "C" NOT NULL,
    seq         bigint NOT NULL,    -- 1, 2, 3, ... within the topic
    received_at bigint NOT NULL,    -- microseconds since 1970, UTC
    digest      bigint NOT NULL,    -- of the payload, so that a repeat need not read it
    commit_id   bigint NOT NULL,    -- by which a commit of unknown outcome knows its rows
    event_id    text COLLATE "C" NOT NULL,
    timestamp   text NOT NULL,
    source      text NOT NULL,
    payload     text NOT NULL,
    PRIMARY KEY (topic, seq),
    UNIQUE (topic, event_id)
);

CREATE TABLE sekali.sources (
    topic        text COLLATE "C" NOT NULL,
    source       text COLLATE "C" NOT NULL,     -- '': all that are not named
    accepted     bigint NOT NULL DEFAULT 0,
    duplicates   bigint NOT NULL DEFAULT 0,
    conflicts    bigint NOT NULL DEFAULT 0,
    late_seconds bigint NOT NULL DEFAULT 0,     -- between the events and their duplicates, all of them together
    late_1s      bigint NOT NULL DEFAULT 0,     -- duplicates that came up to so long after the event, each counted once
    late_10s     bigint NOT NULL DEFAULT 0,
    late_1min    bigint NOT NULL DEFAULT 0,
    late_5min    bigint NOT NULL DEFAULT 0,
    late_1h      bigint NOT NULL DEFAULT 0,
    late_6h      bigint NOT NULL DEFAULT 0,
    late_1d      bigint NOT NULL DEFAULT 0,
    late_7d      bigint NOT NULL DEFAULT 0,
    late_30d     bigint NOT NULL DEFAULT 0,
    late_more    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, source)
) WITH (fillfactor = 50);                       -- as topics

CREATE TABLE sekali.repeats (                   -- the events that each node saw repeated most recently
    topic         text COLLATE "C" NOT NULL,
    seq           bigint NOT NULL,
    node          bigint NOT NULL,              -- 0 is all that are gone
    duplicates    bigint NOT NULL,
    conflicts     bigint NOT NULL,
    last_at       bigint NOT NULL,              -- microseconds since 1970, UTC
    last_source   text NOT NULL,
    last_conflict boolean NOT NULL,
    PRIMARY KEY (topic, seq, node)
);

CREATE TABLE sekali.nodes (
    node     bigint PRIMARY KEY,    -- 0 is all that are gone
    fence    bigint NOT NULL,       -- only the last connection of a node counts for it
    epoch    bigint NOT NULL,       -- the last counts that it stored
    rejected bigint NOT NULL,
    seen     timestamptz NOT NULL
);
INSERT INTO sekali.nodes VALUES (0, 0, 0, 0, now());
