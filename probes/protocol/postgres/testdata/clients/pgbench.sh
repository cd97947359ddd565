# SPDX-License-Identifier: Apache-2.0
# pgbench 15
set -e
pgbench -q -i -s 1 -I dtp
psql -X -q -c "INSERT INTO pgbench_branches VALUES (1, 0); INSERT INTO pgbench_tellers SELECT i, 1, 0 FROM generate_series(1, 10) i; INSERT INTO pgbench_accounts SELECT i, 1, 0 FROM generate_series(1, 100000) i"
for mode in simple extended prepared; do
	pgbench -n -M $mode -t 4 -c 1
	pgbench -n -S -M $mode -t 4 -c 2
done
script=$(mktemp)
cat > "$script" <<'E'
\startpipeline
SELECT 1;
SELECT 2;
SELECT abalance FROM pgbench_accounts WHERE aid = 7;
\endpipeline
E
pgbench -n -M extended -f "$script" -t 3
pgbench -n -M prepared -f "$script" -t 3
rm "$script"
