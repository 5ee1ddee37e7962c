# shellcheck shell=bash
# For scripts that try a running server: makes `place`, a temporary directory, and starts the debug build in it when
# `serve` is called, which sets `address`. Both are gone when the script ends.
place=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; wait; rm -rf "$place"' EXIT

serve() {
    cargo build --locked --quiet --bin sekali
    target/debug/sekali serve --bind 127.0.0.1:0 --store "sqlite:$place/store.db" >"$place/log" 2>&1 &
    server=$!
    address=
    for _ in $(seq 200); do
        address=$(sed -n 's|.*listening on \(http://[0-9.:]*\).*|\1|p' "$place/log" | head -n 1)
        if [ -n "$address" ]; then return; fi
        sleep 0.05
    done
    cat "$place/log"
    exit 1
}
