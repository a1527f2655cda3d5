#!/usr/bin/env bash
# Two writers and a checkpointer on one database. $1: journal mode (wal, delete).
set -eu
database=$1.db
sqlite3 "$database" "pragma journal_mode=$1; create table if not exists t (id integer primary key, text blob);" >/dev/null
writer() {
    while :; do
        sqlite3 -cmd '.timeout 20000' "$database" \
            "begin immediate; insert into t (text) values (randomblob(abs(random()) % 6000));
             update t set text = randomblob(900) where id = abs(random()) % 500 + 1;
             delete from t where id < (select max(id) from t) - 400; commit;" >/dev/null || true
    done
}
writer &
writer &
while :; do
    sqlite3 -cmd '.timeout 20000' "$database" 'pragma wal_checkpoint(truncate);' >/dev/null || true
    sleep 0.2
done
