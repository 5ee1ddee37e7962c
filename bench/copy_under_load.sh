#!/usr/bin/env bash
# What `sekali copy` from PostgreSQL takes from the nodes that write meanwhile: commits of a hot topic in spans of five
# seconds, as parts of those in the ten seconds before the copy, and within how many of these spans the copy was done.
# Arguments: the URL of an empty database, and the program (target/release/sekali where none is named).
set -euo pipefail
url=$1
sekali=${2:-target/release/sekali}
place=$(mktemp -d)
address=127.0.0.1:18180
export SEKALI_URL=http://$address

"$sekali" serve --store "$url" --bind "$address" --log warn &
node=$!
load=
trap 'kill $node $load 2>/dev/null || true; wait; rm -rf "$place"' EXIT
until "$sekali" health >/dev/null 2>&1; do sleep 0.1; done

# Two and a half million events in eight topics, and a ninth that is written to all the time.
"$sekali" bench --events 2500000 --batch 1000 --concurrency 8 --duplicates 0 --topics 8 | tail -n 1
"$sekali" bench --events 5000000 --batch 1 --concurrency 4 --duplicates 0 --topics 1 >/dev/null 2>&1 &
load=$!

# What a connection has updated is known up to a second later: little of a span, and the same before the copy.
commits() { psql "$url" -Atc "SELECT n_tup_upd FROM pg_stat_user_tables WHERE schemaname = 'sekali' AND relname = 'topics'"; }
sleep 5
before=$(commits)
sleep 10
at=$(commits)
usual=$(((at - before) / 2))

begun=$(date +%s.%N)
"$sekali" copy "$url" "sqlite:$place/copy.db" >"$place/said" 2>&1 &
copy=$!
while sleep 5 && kill -0 $copy 2>/dev/null; do
    now=$(commits)
    awk -v commits=$((now - at)) -v usual=$usual 'BEGIN { printf "%.2f ", commits / usual }'
    at=$now
done
wait $copy || { cat "$place/said"; exit 1; }
echo
awk -v begun="$begun" -v ended="$(date +%s.%N)" -v usual=$usual \
    'BEGIN { printf "copied within %.0f s, beside %.0f commits a second before\n", ended - begun, usual / 5 }'
