// SPDX-License-Identifier: Apache-2.0

package postgres

// conditions are the names of the errors that applications meet (https://www.postgresql.org/docs/18/errcodes-appendix.html).
var conditions = map[string]string{
	"08P01": "protocol_violation",
	"0A000": "feature_not_supported",
	"21000": "cardinality_violation",
	"22001": "string_data_right_truncation",
	"22003": "numeric_value_out_of_range",
	"22007": "invalid_datetime_format",
	"22008": "datetime_field_overflow",
	"22012": "division_by_zero",
	"22021": "character_not_in_repertoire",
	"22023": "invalid_parameter_value",
	"2202E": "array_subscript_error",
	"22P02": "invalid_text_representation",
	"22P03": "invalid_binary_representation",
	"22P04": "bad_copy_file_format",
	"22P05": "untranslatable_character",
	"23502": "not_null_violation",
	"23503": "foreign_key_violation",
	"23505": "unique_violation",
	"23514": "check_violation",
	"23P01": "exclusion_violation",
	"24000": "invalid_cursor_state",
	"25001": "active_sql_transaction",
	"25006": "read_only_sql_transaction",
	"25P01": "no_active_sql_transaction",
	"25P02": "in_failed_sql_transaction",
	"25P03": "idle_in_transaction_session_timeout",
	"25P04": "transaction_timeout",
	"26000": "invalid_sql_statement_name",
	"28000": "invalid_authorization_specification",
	"28P01": "invalid_password",
	"2BP01": "dependent_objects_still_exist",
	"34000": "invalid_cursor_name",
	"3D000": "invalid_catalog_name",
	"3F000": "invalid_schema_name",
	"40001": "serialization_failure",
	"40003": "statement_completion_unknown",
	"40P01": "deadlock_detected",
	"42501": "insufficient_privilege",
	"42601": "syntax_error",
	"42602": "invalid_name",
	"42701": "duplicate_column",
	"42702": "ambiguous_column",
	"42703": "undefined_column",
	"42704": "undefined_object",
	"42710": "duplicate_object",
	"42712": "duplicate_alias",
	"42723": "duplicate_function",
	"42725": "ambiguous_function",
	"42803": "grouping_error",
	"42804": "datatype_mismatch",
	"42830": "invalid_foreign_key",
	"42846": "cannot_coerce",
	"42883": "undefined_function",
	"42P01": "undefined_table",
	"42P02": "undefined_parameter",
	"42P03": "duplicate_cursor",
	"42P05": "duplicate_prepared_statement",
	"42P06": "duplicate_schema",
	"42P07": "duplicate_table",
	"42P08": "ambiguous_parameter",
	"42P10": "invalid_column_reference",
	"42P18": "indeterminate_datatype",
	"42P22": "indeterminate_collation",
	"53100": "disk_full",
	"53200": "out_of_memory",
	"53300": "too_many_connections",
	"54000": "program_limit_exceeded",
	"54001": "statement_too_complex",
	"55000": "object_not_in_prerequisite_state",
	"55006": "object_in_use",
	"55P03": "lock_not_available",
	"57014": "query_canceled",
	"57P01": "admin_shutdown",
	"57P02": "crash_shutdown",
	"57P03": "cannot_connect_now",
	"57P04": "database_dropped",
	"57P05": "idle_session_timeout",
	"58000": "system_error",
	"58030": "io_error",
	"P0001": "raise_exception",
	"P0002": "no_data_found",
	"P0003": "too_many_rows",
	"P0004": "assert_failure",
	"XX000": "internal_error",
	"XX001": "data_corrupted",
	"XX002": "index_corrupted",
}

type command struct {
	name string
	verb verb
}

// commands are those of the tags that an application may get (src/include/tcop/cmdtaglist.h, PostgreSQL 18).
var commands = func() map[string]command {
	m := map[string]command{}
	for _, name := range []string{
		"ALTER TABLE", "ANALYZE", "BEGIN", "CALL", "CHECKPOINT", "CLOSE CURSOR", "CLOSE CURSOR ALL", "CLUSTER", "COMMENT", "COMMIT",
		"COMMIT PREPARED", "CREATE INDEX", "CREATE SCHEMA", "CREATE TABLE", "CREATE TABLE AS", "CREATE VIEW", "DECLARE CURSOR", "DISCARD",
		"DO", "DROP INDEX", "DROP SCHEMA", "DROP TABLE", "DROP VIEW", "EXECUTE", "EXPLAIN", "GRANT", "LISTEN", "LOAD", "LOCK TABLE", "MOVE",
		"NOTIFY", "PREPARE TRANSACTION", "REFRESH MATERIALIZED VIEW", "REINDEX", "RELEASE", "RESET", "REVOKE", "ROLLBACK",
		"ROLLBACK PREPARED", "SAVEPOINT", "SET", "SET CONSTRAINTS", "SHOW", "START TRANSACTION", "TRUNCATE TABLE", "UNLISTEN", "VACUUM",
	} {
		m[name] = command{name, verbOther}
	}
	for name, v := range map[string]verb{
		"SELECT": verbSelect, "FETCH": verbFetch, "COPY": verbCopy, "INSERT": verbChange, "UPDATE": verbChange, "DELETE": verbChange,
		"MERGE": verbChange, "PREPARE": verbPrepare, "DEALLOCATE": verbDeallocate, "DEALLOCATE ALL": verbDeallocateAll,
		"DISCARD ALL": verbDiscardAll,
	} {
		m[name] = command{name, v}
	}
	return m
}()
