# SPDX-License-Identifier: Apache-2.0
psql -X -f testdata/clients/psql.sql
psql -X -c "SELECT 1; SELECT 2" -c "SELECT 3"
PGDATABASE=nosuch psql -X -c "SELECT 1"
PGPASSWORD=wrong-planted psql -X -c "SELECT 1"
PGSSLMODE=disable psql -X -c "SELECT 4"
