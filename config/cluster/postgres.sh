#!/bin/sh
# Makes the database at the first start, gives its user the password of this start, and serves it.
set -eu

store=/var/lib/postgresql/store

# The file of a secret; the variable is for those who have none.
if [ -n "${SEKALI_DB_PASSWORD_FILE:-}" ]; then
    if ! SEKALI_DB_PASSWORD=$(cat "$SEKALI_DB_PASSWORD_FILE"); then
        echo "$SEKALI_DB_PASSWORD_FILE cannot be read by $(id -un): make the file readable (chmod 644)" >&2
        exit 1
    fi
fi
case "${SEKALI_DB_PASSWORD:-}" in
'')
    echo "there is no password: make a file with one, such as $(od -An -N16 -tx1 /dev/urandom | tr -d ' \n'), and put SEKALI_DB_PASSWORD_FILE=PATH into .env" >&2
    exit 1
    ;;
*[!A-Za-z0-9_-]*)
    # It stands in SQL.
    echo "the password of the database may have letters, digits, - and _ only" >&2
    exit 1
    ;;
esac

# SQL, a statement a line, on a server without a socket. The server that was here before had the number of this script, which
# is why its lock file would be taken for that of one that runs: PG_GRANDPARENT_PID says that it is not.
alone() {
    PG_GRANDPARENT_PID=$$ postgres --single -c log_min_messages=warning -D "$1" postgres >/dev/null
}

if [ ! -d "$store/data" ]; then
    rm -rf "$store/made"
    initdb --encoding=UTF8 --locale=C.UTF-8 --auth-local=peer --auth-host=scram-sha-256 -D "$store/made"
    printf '%s\n' "CREATE ROLE sekali LOGIN" "CREATE DATABASE sekali OWNER sekali" | alone "$store/made"
    # Only what is whole has its name.
    mv "$store/made" "$store/data"
fi
echo "ALTER ROLE sekali PASSWORD '$SEKALI_DB_PASSWORD'" | alone "$store/data"
unset SEKALI_DB_PASSWORD

exec postgres -D "$store/data" -c config_file=/etc/postgresql/postgresql.conf
