-- Version 2.

ALTER TABLE sekali.store
    ADD COLUMN half_copied boolean NOT NULL DEFAULT false, -- a copy from another store was begun, and is not whole
    ADD COLUMN copied bigint[];                            -- what the last one left: accepted, duplicates, conflicts, rejected
