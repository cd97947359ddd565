// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
)

// headerSize is of a message: its type, and the length of what follows the type.
const headerSize = 1 + 4

// What a client sends before anything else has a length and a code instead (section "Start-up" of the documentation).
const (
	startHeaderSize = 4 + 4
	maxStart        = 10000 // MAX_STARTUP_PACKET_LENGTH in src/include/libpq/pqcomm.h, PostgreSQL 18

	codeVersion3 = 3 << 16 // the minor version is in the lower half
	codeCancel   = 1234<<16 | 5678
	codeTLS      = 1234<<16 | 5679
	codeGSS      = 1234<<16 | 5680
)

// Types of messages, with the names of https://www.postgresql.org/docs/18/protocol-message-formats.html. Those of the two sides share
// letters.
const (
	bind         = 'B'
	closing      = 'C'
	describe     = 'D'
	execute      = 'E'
	flush        = 'H'
	functionCall = 'F'
	parse        = 'P'
	password     = 'p' // and all else that authenticates
	query        = 'Q'
	syncing      = 'S'
	terminate    = 'X'

	copyData = 'd' // of both sides
	copyDone = 'c'
	copyFail = 'f'

	authentication  = 'R'
	bindComplete    = '2'
	callResponse    = 'V'
	closeComplete   = '3'
	commandComplete = 'C'
	copyBoth        = 'W'
	copyIn          = 'G'
	copyOut         = 'H'
	dataRow         = 'D'
	emptyQuery      = 'I'
	errorResponse   = 'E'
	keyData         = 'K'
	negotiate       = 'v'
	noData          = 'n'
	notice          = 'N'
	notification    = 'A'
	parameter       = 'S' // ParameterStatus
	parameters      = 't' // ParameterDescription
	parseComplete   = '1'
	ready           = 'Z'
	rowDescription  = 'T'
	suspended       = 's' // PortalSuspended
)

const (
	// long is the longest that the server takes or makes (PQ_LARGE_MESSAGE_LIMIT in src/include/libpq/libpq.h, PostgreSQL 18).
	long = 1<<30 - 1
	// short is the longest of the other messages (PQ_SMALL_MESSAGE_LIMIT there).
	short = 10000
	// medium bounds the server's other messages, as libpq does (VALID_LONG_MESSAGE_TYPE in src/interfaces/libpq/fe-protocol3.c).
	medium = 30000
	// auth is the longest message that authenticates (PG_MAX_AUTH_TOKEN_LENGTH in src/include/libpq/auth.h).
	auth = 65535
)

// size is how long a message may be, as its length says.
type size struct{ least, most uint32 }

func (z size) fits(n uint32) bool { return n >= z.least && n <= z.most }

// said are the sizes of a client's messages. No message is shorter than its length.
var said = [256]size{
	bind: {4 + 8, long}, closing: {4 + 2, short}, describe: {4 + 2, short}, execute: {4 + 5, short}, flush: {4, 4},
	functionCall: {4 + 10, long}, parse: {4 + 4, long}, password: {4, auth}, query: {4 + 1, long}, syncing: {4, 4}, terminate: {4, 4},
	copyData: {4, long}, copyDone: {4, 4}, copyFail: {4 + 1, short},
}

// answered are those of a server's.
var answered = [256]size{
	authentication: {4 + 4, medium}, bindComplete: {4, 4}, callResponse: {4 + 4, long}, closeComplete: {4, 4},
	commandComplete: {4 + 2, medium}, copyBoth: {4 + 3, medium}, copyIn: {4 + 3, medium}, copyOut: {4 + 3, medium}, dataRow: {4 + 2, long},
	emptyQuery: {4, 4}, errorResponse: {4 + 1, long}, keyData: {4 + 4, medium}, negotiate: {4 + 8, medium}, noData: {4, 4},
	notice: {4 + 1, long}, notification: {4 + 6, long}, parameter: {4 + 2, medium}, parameters: {4 + 2, long}, parseComplete: {4, 4},
	ready: {5, 5}, rowDescription: {4 + 2, long}, suspended: {4, 4}, copyData: {4, long}, copyDone: {4, 4},
}

// noise says whether a server's message may come at any time, and answers nothing.
func noise(kind byte) bool { return kind == notice || kind == notification || kind == parameter }

// text cuts a string that ends with a zero off b.
func text(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// verb is what a command's tag begins with, for those of which more is to be known.
type verb uint8

const (
	verbOther verb = iota
	verbSelect
	verbFetch
	verbCopy
	verbChange // INSERT, UPDATE, DELETE, MERGE
	verbPrepare
	verbDeallocate
	verbDeallocateAll
	verbDiscardAll
)

// maxTag is the longest tag that is looked at: COMPLETION_TAG_BUFSIZE in src/include/tcop/cmdtag.h, PostgreSQL 18.
const maxTag = 64

// tag is what a CommandComplete says.
type tag struct {
	verb verb
	name string // of the command; empty: of none that matters
	rows int64  // -1: it does not say
}

// parseTag takes a CommandComplete's tag, without the zero.
func parseTag(b []byte) tag {
	t := tag{rows: -1}
	name := b
	if i := bytes.LastIndexByte(b, ' '); i > 0 && i+1 < len(b) && len(b)-i <= 19 {
		n := int64(0)
		for _, c := range b[i+1:] {
			if c < '0' || c > '9' {
				n = -1
				break
			}
			n = n*10 + int64(c-'0')
		}
		if t.rows = n; n >= 0 {
			name = b[:i]
			if j := len(name) - len(" 0"); j > 0 && string(name[:j]) == "INSERT" { // an object's id, which is 0 since PostgreSQL 12
				name = name[:j]
			} else if string(name[:min(len(name), 7)]) == "INSERT " {
				name = name[:6]
			}
		}
	}
	c := commands[string(name)]
	t.verb, t.name = c.verb, c.name
	return t
}

// isTag says whether b looks like a tag with its zero.
func isTag(b []byte) bool {
	if len(b) < 2 || len(b) > maxTag || b[len(b)-1] != 0 || b[0] == ' ' {
		return false
	}
	for _, c := range b[:len(b)-1] {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != ' ' {
			return false
		}
	}
	return true
}
