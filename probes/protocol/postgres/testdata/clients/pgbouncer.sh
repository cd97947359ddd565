# SPDX-License-Identifier: Apache-2.0
# PgBouncer 1.18, between pgbench and the server: it is what is recorded.
set -e
dir=$(mktemp -d)
cat > "$dir/ini" <<E
[databases]
shop = host=$PGHOST port=$PGPORT user=app password=$PGPASSWORD dbname=shop
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 36432
auth_type = any
pool_mode = transaction
default_pool_size = 2
unix_socket_dir =
server_reset_query_always = 1
server_reset_query = DISCARD ALL
E
cat > "$dir/script" <<E
BEGIN;
SELECT a FROM b WHERE a > 2;
UPDATE b SET a = a + 0 WHERE a = 3;
END;
E
chmod -R a+rX "$dir"
setpriv --reuid=65534 --regid=65534 --clear-groups ${PGBOUNCER:-pgbouncer} "$dir/ini" 2> /dev/null &
pid=$!
sleep 1
export PGHOST=127.0.0.1 PGPORT=36432
psql -X -q -c "CREATE TABLE b (a int)" -c "INSERT INTO b SELECT generate_series(1, 5)"
pgbench -n -M simple -f "$dir/script" -t 3 -c 3
pgbench -n -M extended -f "$dir/script" -t 3 -c 3
psql -X -c "SELECT nothing" || true
kill $pid
wait $pid || true
rm -r "$dir"
