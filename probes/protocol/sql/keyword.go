// SPDX-License-Identifier: Apache-2.0

package sql

// keyword is a word that guides the reading of a statement; other words, keywords of SQL among them, are no.
type keyword uint8

const (
	no keyword = iota

	// What a statement may begin with, up to kWith.
	kAbort
	kAlter
	kAnalyze
	kBackup
	kBaseBackup
	kBegin
	kBinlog
	kCache
	kCall
	kChange
	kCheck
	kCheckpoint
	kChecksum
	kClone
	kClose
	kCluster
	kComment
	kCommit
	kCopy
	kCreate
	kCreateSlot
	kDeallocate
	kDeclare
	kDelete
	kDesc
	kDescribe
	kDiscard
	kDo
	kDrop
	kDropSlot
	kEnd
	kExecute
	kExplain
	kFetch
	kFlush
	kGet
	kGrant
	kHandler
	kHelp
	kIdentifySystem
	kImport
	kInsert
	kInstall
	kKill
	kListen
	kLoad
	kLock
	kMerge
	kMove
	kNotify
	kOpen
	kOptimize
	kPrepare
	kPurge
	kReassign
	kRefresh
	kReindex
	kRelease
	kRename
	kRepair
	kReplace
	kReset
	kResignal
	kRestart
	kRevoke
	kRollback
	kSavepoint
	kSecurity
	kSelect
	kSet
	kShow
	kShutdown
	kSignal
	kStart
	kStartReplication
	kStop
	kTable
	kTimelineHistory
	kTruncate
	kUninstall
	kUnlisten
	kUnlock
	kUpdate
	kUse
	kVacuum
	kValues
	kXA
	kWith

	// What else objects are, from kAggregate to kView. kTable is one, too.
	kAggregate
	kCast
	kCollation
	kDatabase
	kDomain
	kEvent
	kExtension
	kFunction
	kGroup
	kIndex
	kLanguage
	kMapping // of a user: what is called USER until FOR comes
	kMaterialized
	kOperator
	kPackage
	kPolicy
	kProcedure
	kPublication
	kRole
	kRoutine
	kRule
	kSchema
	kSequence
	kServer
	kStatistics
	kSubscription
	kSystem
	kTablespace
	kTrigger
	kType
	kUser
	kView

	kAnd
	kArray
	kAs
	kAsc
	kAtomic
	kAuthorization
	kBetween
	kBy
	kCase
	kCatalog
	kCharacter
	kCharacteristics
	kCharset
	kCollate
	kConcurrently
	kConflict
	kConstraints
	kCross
	kDefault
	kDelayed
	kDistinct
	kDuplicate
	kElse
	kEscape
	kExcept
	kExists
	kFalse
	kFor
	kForce
	kFreeze
	kFrom
	kFull
	kGlobal
	kHaving
	kHighPriority
	kIdentified
	kIf
	kIgnore
	kIn
	kInner
	kIntersect
	kInto
	kIs
	kJoin
	kKey
	kLateral
	kLeft
	kLike
	kLimit
	kLocal
	kLoop
	kLowPriority
	kNames
	kNatural
	kNoWrite
	kNot
	kNull
	kOffset
	kOn
	kOnly
	kOr
	kOrder
	kPassword
	kPersist
	kPersistOnly
	kQuick
	kRecursive
	kRepeat
	kResource
	kReturning
	kRight
	kRow
	kSession
	kStatement
	kStraightJoin
	kTables
	kTemp
	kTemporary
	kThen
	kTime
	kTo
	kTransaction
	kTrue
	kUescape
	kUnion
	kUnlogged
	kUsing
	kValue
	kVerbose
	kWhen
	kWhere
	kWhile
	kWindow
	kXML
	kZone

	// What is no word, but may come before one.
	kClosed // a closing parenthesis
	kEnded  // a semicolon in parentheses
)

const (
	firstKind = kAggregate
	lastKind  = kView
)

var words = [kClosed]string{
	kAbort: "ABORT", kAlter: "ALTER", kAnalyze: "ANALYZE", kBackup: "BACKUP", kBaseBackup: "BASE_BACKUP", kBegin: "BEGIN",
	kBinlog: "BINLOG", kCache: "CACHE", kCall: "CALL", kChange: "CHANGE", kCheck: "CHECK", kCheckpoint: "CHECKPOINT",
	kChecksum: "CHECKSUM", kClone: "CLONE", kClose: "CLOSE", kCluster: "CLUSTER", kComment: "COMMENT", kCommit: "COMMIT",
	kCopy: "COPY", kCreate: "CREATE", kCreateSlot: "CREATE_REPLICATION_SLOT", kDeallocate: "DEALLOCATE", kDeclare: "DECLARE",
	kDelete: "DELETE", kDesc: "DESC", kDescribe: "DESCRIBE", kDiscard: "DISCARD", kDo: "DO", kDrop: "DROP",
	kDropSlot: "DROP_REPLICATION_SLOT", kEnd: "END", kExecute: "EXECUTE", kExplain: "EXPLAIN", kFetch: "FETCH", kFlush: "FLUSH",
	kGet: "GET", kGrant: "GRANT", kHandler: "HANDLER", kHelp: "HELP", kIdentifySystem: "IDENTIFY_SYSTEM", kImport: "IMPORT",
	kInsert: "INSERT", kInstall: "INSTALL", kKill: "KILL", kListen: "LISTEN", kLoad: "LOAD", kLock: "LOCK", kMerge: "MERGE",
	kMove: "MOVE", kNotify: "NOTIFY", kOpen: "OPEN", kOptimize: "OPTIMIZE", kPrepare: "PREPARE", kPurge: "PURGE",
	kReassign: "REASSIGN", kRefresh: "REFRESH", kReindex: "REINDEX", kRelease: "RELEASE", kRename: "RENAME", kRepair: "REPAIR",
	kReplace: "REPLACE", kReset: "RESET", kResignal: "RESIGNAL", kRestart: "RESTART", kRevoke: "REVOKE", kRollback: "ROLLBACK",
	kSavepoint: "SAVEPOINT", kSecurity: "SECURITY", kSelect: "SELECT", kSet: "SET", kShow: "SHOW", kShutdown: "SHUTDOWN",
	kSignal: "SIGNAL", kStart: "START", kStartReplication: "START_REPLICATION", kStop: "STOP", kTable: "TABLE",
	kTimelineHistory: "TIMELINE_HISTORY", kTruncate: "TRUNCATE", kUninstall: "UNINSTALL", kUnlisten: "UNLISTEN", kUnlock: "UNLOCK",
	kUpdate: "UPDATE", kUse: "USE", kVacuum: "VACUUM", kValues: "VALUES", kXA: "XA", kWith: "WITH",

	kAggregate: "AGGREGATE", kCast: "CAST", kCollation: "COLLATION", kDatabase: "DATABASE", kDomain: "DOMAIN", kEvent: "EVENT",
	kExtension: "EXTENSION", kFunction: "FUNCTION", kGroup: "GROUP", kIndex: "INDEX", kLanguage: "LANGUAGE",
	kMapping: "MAPPING", kMaterialized: "MATERIALIZED", kOperator: "OPERATOR", kPackage: "PACKAGE", kPolicy: "POLICY", kProcedure: "PROCEDURE",
	kPublication: "PUBLICATION", kRole: "ROLE", kRoutine: "ROUTINE", kRule: "RULE", kSchema: "SCHEMA", kSequence: "SEQUENCE",
	kServer: "SERVER", kStatistics: "STATISTICS", kSubscription: "SUBSCRIPTION", kSystem: "SYSTEM", kTablespace: "TABLESPACE",
	kTrigger: "TRIGGER", kType: "TYPE", kUser: "USER", kView: "VIEW",

	kAnd: "AND", kArray: "ARRAY", kAs: "AS", kAsc: "ASC", kAtomic: "ATOMIC", kAuthorization: "AUTHORIZATION", kBetween: "BETWEEN",
	kBy: "BY", kCase: "CASE", kCatalog: "CATALOG", kCharacter: "CHARACTER", kCharacteristics: "CHARACTERISTICS", kCharset: "CHARSET",
	kCollate: "COLLATE", kConcurrently: "CONCURRENTLY", kConflict: "CONFLICT", kConstraints: "CONSTRAINTS", kCross: "CROSS",
	kDefault: "DEFAULT", kDelayed: "DELAYED", kDistinct: "DISTINCT", kDuplicate: "DUPLICATE", kElse: "ELSE", kEscape: "ESCAPE",
	kExcept: "EXCEPT", kExists: "EXISTS", kFalse: "FALSE", kFor: "FOR", kForce: "FORCE", kFreeze: "FREEZE", kFrom: "FROM",
	kFull: "FULL", kGlobal: "GLOBAL", kHaving: "HAVING", kHighPriority: "HIGH_PRIORITY", kIdentified: "IDENTIFIED", kIf: "IF",
	kIgnore: "IGNORE", kIn: "IN", kInner: "INNER", kIntersect: "INTERSECT", kInto: "INTO", kIs: "IS", kJoin: "JOIN", kKey: "KEY",
	kLateral: "LATERAL", kLeft: "LEFT", kLike: "LIKE", kLimit: "LIMIT", kLocal: "LOCAL", kLoop: "LOOP",
	kLowPriority: "LOW_PRIORITY", kNames: "NAMES", kNatural: "NATURAL", kNoWrite: "NO_WRITE_TO_BINLOG", kNot: "NOT", kNull: "NULL",
	kOffset: "OFFSET", kOn: "ON", kOnly: "ONLY", kOr: "OR", kOrder: "ORDER", kPassword: "PASSWORD", kPersist: "PERSIST",
	kPersistOnly: "PERSIST_ONLY", kQuick: "QUICK", kRecursive: "RECURSIVE", kRepeat: "REPEAT", kResource: "RESOURCE",
	kReturning: "RETURNING", kRight: "RIGHT", kRow: "ROW", kSession: "SESSION", kStatement: "STATEMENT",
	kStraightJoin: "STRAIGHT_JOIN", kTables: "TABLES", kTemp: "TEMP", kTemporary: "TEMPORARY", kThen: "THEN", kTime: "TIME",
	kTo: "TO", kTransaction: "TRANSACTION", kTrue: "TRUE", kUescape: "UESCAPE", kUnion: "UNION", kUnlogged: "UNLOGGED",
	kUsing: "USING", kValue: "VALUE", kVerbose: "VERBOSE", kWhen: "WHEN", kWhere: "WHERE", kWhile: "WHILE", kWindow: "WINDOW",
	kXML: "XML", kZone: "ZONE",
}

// isKind says that a keyword is what an object is.
func (k keyword) isKind() bool {
	return k >= firstKind && k <= lastKind && k != kMapping || k == kTable
}

// Keywords are found by a hash, if there is one at all of the word's length with its first letter.
const slotMask = 1<<10 - 1

var (
	slots   [slotMask + 1]keyword
	lengths [256]uint32 // by first letter
)

func init() {
	for k := keyword(1); k < kClosed; k++ {
		w := words[k]
		lengths[w[0]] |= 1 << len(w)
		lengths[w[0]|0x20] |= 1 << len(w)
		s := hash([]byte(w))
		for slots[s] != no {
			s = (s + 1) & slotMask
		}
		slots[s] = k
	}
}

// hash is of a few letters that tell most keywords apart.
func hash(b []byte) uint32 {
	n := len(b)
	h := uint32(n) + uint32(b[0]|0x20)*31 + uint32(b[n/2]|0x20)*173 + uint32(b[n-1]|0x20)*911
	return (h ^ h>>9) & slotMask
}

// lookup finds the keyword that a word is.
func lookup(b []byte) keyword {
	if len(b) > 31 || lengths[b[0]]&(1<<len(b)) == 0 {
		return no
	}
	for s := hash(b); slots[s] != no; s = (s + 1) & slotMask {
		if w := words[slots[s]]; len(w) == len(b) && equal(b, w) {
			return slots[s]
		}
	}
	return no
}

// equal compares a word with a keyword of the same length. It holds in words only: elsewhere other characters might pass for letters.
func equal(b []byte, w string) bool {
	for i, c := range b {
		if c&^0x20 != w[i] {
			return false
		}
	}
	return true
}

// operation numbers what Statement.Operation may be: a keyword that a statement may begin with, or a verb and a kind of object.
type operation uint16

const (
	noOperation      operation = 0
	startTransaction operation = operation(kWith) // which is no operation itself
	manyKinds        operation = operation(lastKind-firstKind) + 2
	firstOfKind      operation = operation(kWith) + 1
	manyOperations   operation = firstOfKind + operation(len(ofKind))*manyKinds
)

// ofKind are the verbs to which the kind of object belongs.
var ofKind = [...]keyword{kCreate, kAlter, kDrop, kRename, kRefresh}

// operations are their names, and batches those of several statements that have one in common.
var operations, batches [manyOperations]string

func init() {
	for k := keyword(1); k < kWith; k++ {
		operations[k] = words[k]
	}
	operations[startTransaction] = "START TRANSACTION"
	for _, verb := range ofKind {
		for k := firstKind; k <= lastKind; k++ {
			operations[operationOf(verb, k)] = words[verb] + " " + kindName(k)
		}
		operations[operationOf(verb, kTable)] = words[verb] + " " + words[kTable]
	}
	for i, name := range operations {
		if name != "" {
			batches[i] = batch + " " + name
		}
	}
}

// batch is what several statements that have nothing in common are called.
const batch = "BATCH"

func kindName(k keyword) string {
	switch k {
	case kMapping:
		return "USER MAPPING"
	case kMaterialized:
		return "MATERIALIZED VIEW"
	}
	return words[k]
}

// operationOf numbers what a verb does to objects of a kind.
func operationOf(verb, kind keyword) operation {
	for i, v := range ofKind {
		if v != verb || kind == no {
			continue
		}
		n := firstOfKind + operation(i)*manyKinds
		if kind != kTable {
			n += 1 + operation(kind-firstKind)
		}
		return n
	}
	return operation(verb)
}
