# Recipes for those who work on sekali. `just` lists them.

default:
    @just --list

# Run the log as a user would.
run *arguments:
    cargo run --release -- {{arguments}}

# All tests.
test:
    cargo test

# Format and lint, as CI does.
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# The tests of the comparison with other systems, which `just test` does not build.
test-bench:
    cargo test -p sekali-bench

# sekali beside NATS, Redis, PostgreSQL and SQLite; see docs/BENCHMARKS.md.
compare *arguments:
    cargo build --release
    cargo run --release -p sekali-bench -- compare {{arguments}}

# How long each part takes on its own; an argument chooses parts by name. See docs/BENCHMARKS.md.
parts *arguments:
    cargo bench -p sekali-bench --bench parts -- {{arguments}}

# The instructions that an event costs, against those of bench/instructions.txt.
instructions:
    .ci/instructions

# The PostgreSQL engine on the oldest and the newest version; arguments are others.
postgres *arguments:
    .ci/postgres {{arguments}}

# The console in a headless browser.
e2e *arguments:
    .ci/e2e {{arguments}}

# The pictures of the console in docs.
screenshots:
    .ci/screenshots

# The picture of a first session in a terminal in docs.
recording:
    .ci/recording

# Everything that a change must pass.
ci:
    .ci/run

# All tests, again and again on a busy machine: before a release. Arguments are runs and busy loops.
loaded *arguments:
    .ci/loaded {{arguments}}

# What takes longer than CI and is run by hand, before a release; arguments choose parts by name.
full *arguments:
    .ci/full {{arguments}}

# Write the OpenAPI document anew after a change of the HTTP interface.
openapi:
    UPDATE=1 cargo test --lib openapi

# Write the help of all commands (tests/help) anew after a change of the command line.
help:
    UPDATE=1 cargo test --test cli help

# The stress test against a log that runs: 100,000 events of which 20 % are duplicates.
bench:
    cargo run --release -- bench --events 100000 --duplicates 20
