-- Version 3. What a seq means between two restores.

CREATE TABLE sekali.histories (
    number     bigint PRIMARY KEY,           -- 1, 2, 3, ...; the greatest is the current one
    id         text COLLATE "C" NOT NULL UNIQUE,
    began_at   bigint NOT NULL,              -- microseconds since 1970, UTC
    server     text,                         -- the server and its timeline; null: no node wrote yet
    started_at bigint                        -- when that server was started, as began_at; null: only nodes
                                             -- with full durability wrote since
);
INSERT INTO sekali.histories (number, id, began_at)
VALUES (1, substr(replace(gen_random_uuid()::text, '-', ''), 21, 12),
    (extract(epoch FROM now()) * 1000000)::bigint);

CREATE TABLE sekali.forks (                  -- the last seqs of a history that ended
    topic    text COLLATE "C" NOT NULL,
    history  bigint NOT NULL,
    last_seq bigint NOT NULL,                -- the next history has the same events up to it
    PRIMARY KEY (topic, history)
);
