// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Facts about packets, with the names of https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html and, where MariaDB's
// differ, of https://mariadb.com/docs/server/reference/clientserver-protocol.
const (
	headerSize = 4         // of a packet: length of the payload, sequence id
	maxPayload = 1<<24 - 1 // a payload of this length goes on in the next packet
)

// command is the first byte of what a client sends.
type command uint8

const (
	comQuit             command = 0x01
	comInitDB           command = 0x02
	comQuery            command = 0x03
	comFieldList        command = 0x04
	comStatistics       command = 0x09
	comProcessInfo      command = 0x0a
	comPing             command = 0x0e
	comChangeUser       command = 0x11
	comBinlogDump       command = 0x12
	comTableDump        command = 0x13
	comRegisterSlave    command = 0x15
	comStmtPrepare      command = 0x16
	comStmtExecute      command = 0x17
	comStmtSendLongData command = 0x18
	comStmtClose        command = 0x19
	comStmtReset        command = 0x1a
	comSetOption        command = 0x1b
	comStmtFetch        command = 0x1c
	comBinlogDumpGTID   command = 0x1e
	comResetConnection  command = 0x1f
	comClone            command = 0x20
	comSubscribeGroup   command = 0x21
	comStmtBulkExecute  command = 0xfa // MariaDB's
)

// reply says what answers a command.
type reply uint8

const (
	replyUnknown reply = iota
	replyNone
	replyOne      // one packet
	replyResult   // a result set, several, or none of it: OK, ERR, or the request for a local file
	replyPrepared // COM_STMT_PREPARE's
	replyRows     // rows only
	replyColumns  // column definitions only
	replyAuth     // more of the authentication, then one packet
	replyStream   // packets without end: the connection is another thing from there on
)

var replies = [256]reply{
	comQuit: replyNone, comInitDB: replyOne, comQuery: replyResult, comFieldList: replyColumns,
	0x05: replyOne, 0x06: replyOne, 0x07: replyOne, 0x08: replyOne, // CREATE_DB, DROP_DB, REFRESH, SHUTDOWN
	comStatistics: replyOne, comProcessInfo: replyResult,
	0x0c: replyOne, 0x0d: replyOne, // PROCESS_KILL, DEBUG
	comPing: replyOne, comChangeUser: replyAuth,
	comBinlogDump: replyStream, comTableDump: replyStream, comRegisterSlave: replyOne,
	comStmtPrepare: replyPrepared, comStmtExecute: replyResult, comStmtSendLongData: replyNone, comStmtClose: replyNone,
	comStmtReset: replyOne, comSetOption: replyOne, comStmtFetch: replyRows,
	comBinlogDumpGTID: replyStream, comResetConnection: replyOne, comClone: replyStream, comSubscribeGroup: replyStream,
	comStmtBulkExecute: replyResult,
}

// fits says whether a command's payload may have the length.
func (k command) fits(length int) bool {
	switch k {
	case comQuit, comStatistics, comProcessInfo, comPing, comResetConnection:
		return length == 1
	case comStmtClose, comStmtReset:
		return length == 5
	case comStmtFetch:
		return length == 9
	case comStmtExecute:
		return length >= executeSize
	case comStmtSendLongData, comStmtBulkExecute:
		return length >= 7
	case comSetOption:
		return length == 3
	case comInitDB, comQuery, comStmtPrepare:
		return length > 1
	}
	return replies[k] != replyUnknown
}

// executeSize is what every COM_STMT_EXECUTE begins with: statement id, flags, iteration count.
const executeSize = 1 + 4 + 1 + 4

// Capabilities, which both sides tell each other in the handshake; from the 32nd bit on MariaDB's.
const (
	clientMySQL          = 1 << 0 // not set: MariaDB, which has more capabilities than 32
	clientConnectWithDB  = 1 << 3
	clientCompress       = 1 << 5
	clientProtocol41     = 1 << 9
	clientSSL            = 1 << 11
	clientSecure         = 1 << 15
	clientAuthLenenc     = 1 << 21
	clientSessionTrack   = 1 << 23
	clientDeprecateEOF   = 1 << 24
	clientZstd           = 1 << 26
	clientQueryAttribute = 1 << 27
	clientProgressOld    = 1 << 29
	clientProgress       = 1 << 32
)

// status are the server's flags in OK and EOF packets.
type status uint16

const (
	statusUnused             status = 1 << 2
	statusMoreResults        status = 1 << 3
	statusCursor             status = 1 << 6
	statusNoBackslashEscapes status = 1 << 9
	statusSessionChanged     status = 1 << 14
	statusAnsiQuotes         status = 1 << 15 // MariaDB's
)

// First bytes of a server's packets.
const (
	headOK        = 0x00
	headMore      = 0x01 // in an authentication
	headLocalFile = 0xfb
	headEOF       = 0xfe
	headErr       = 0xff
)

const (
	eofSize      = 5 // of an EOF packet's payload
	minOK        = 7 // the least of an OK packet's
	prepareSize  = 12
	progressCode = 0xffff // of an ERR packet that is none, but MariaDB's report of progress
	errHead      = 3 + 6  // of an ERR packet: code and SQLSTATE; a message follows
)

// lenenc decodes an integer of encoded length. n is 0 if it is not whole, or none.
func lenenc(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	switch c := b[0]; {
	case c < 0xfb:
		return uint64(c), 1
	case c == 0xfc && len(b) >= 3:
		return uint64(binary.LittleEndian.Uint16(b[1:])), 3
	case c == 0xfd && len(b) >= 4:
		return uint64(b[1]) | uint64(b[2])<<8 | uint64(b[3])<<16, 4
	case c == 0xfe && len(b) >= 9:
		return binary.LittleEndian.Uint64(b[1:]), 9
	}
	return 0, 0
}

// lenencText cuts a text of encoded length off.
func lenencText(b []byte) (text, rest []byte, ok bool) {
	v, n := lenenc(b)
	if n == 0 || v > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(v)], b[n+int(v):], true
}

// parseOK takes the payload of an OK packet, or of one that stands for EOF, which may be cut off behind the status. rest is what
// follows the warnings.
func parseOK(b []byte) (st status, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	b = b[1:]
	for range 2 { // affected rows, last id
		_, n := lenenc(b)
		if n == 0 {
			return 0, nil, false
		}
		b = b[n:]
	}
	if len(b) < 2 {
		return 0, nil, false
	}
	return status(binary.LittleEndian.Uint16(b)), b[min(4, len(b)):], true
}

// parseEOF takes the payload of an EOF packet.
func parseEOF(b []byte) (st status, ok bool) {
	if len(b) != eofSize {
		return 0, false
	}
	return status(binary.LittleEndian.Uint16(b[3:])), true
}

// sessionState takes what follows the warnings of an OK packet, and calls f for each change of the session. It returns false if it is not
// whole, or something else.
func sessionState(rest []byte, f func(kind byte, data []byte)) bool {
	if len(rest) == 0 {
		return true
	}
	_, rest, ok := lenencText(rest) // a message
	if !ok {
		return false
	}
	state, rest, ok := lenencText(rest)
	if !ok || len(rest) > 0 {
		return false
	}
	for len(state) > 0 {
		kind := state[0]
		var data []byte
		if data, state, ok = lenencText(state[1:]); !ok {
			return false
		}
		f(kind, data)
	}
	return true
}

// Kinds of changes of the session.
const (
	trackVariables = 0
	trackSchema    = 1
)

// parseColumns takes the first packet of a result set. follows says whether the definitions of its columns come. Where a client may
// do without them, MySQL tells so in a byte before the count, MariaDB in one behind it; a count is never 0.
func parseColumns(b []byte) (n uint64, follows, ok bool) {
	switch v, size := lenenc(b); {
	case size == 0:
		return 0, false, false
	case size == len(b):
		return v, true, v > 0
	case v > 0 && size+1 == len(b) && b[size] <= 1:
		return v, b[size] == 1, true
	case v <= 1:
		n, size := lenenc(b[1:])
		return n, v == 1, size > 0 && size+1 == len(b) && n > 0
	}
	return 0, false, false
}

// ending is a packet that ends an answer.
type ending struct {
	size   int // with its header
	seq    byte
	status status
	code   uint16 // of an error
	eof    bool   // in the form that has no OK
}

// endingOf looks for a packet at the very end of b that ends a result set. eof and ok say which forms may be there.
func endingOf(b []byte, eof, ok bool) (e ending, found bool) {
	if n := len(b) - headerSize - eofSize; eof && n >= 0 {
		p := b[n:]
		if p[0] == eofSize && p[1] == 0 && p[2] == 0 && p[4] == headEOF {
			st, _ := parseEOF(p[headerSize:])
			return ending{size: len(p), seq: p[3], status: st, eof: true}, st&statusUnused == 0
		}
	}
	for n := len(b) - headerSize - minOK; n >= 0; n-- {
		p := b[n:]
		length := len(p) - headerSize
		if int(p[0]) != length&0xff || int(p[1]) != length>>8 || p[2] != 0 {
			continue
		}
		e = ending{size: len(p), seq: p[3]}
		switch p = p[headerSize:]; {
		case p[0] == headEOF && ok:
			st, rest, whole := parseOK(p)
			if whole && p[1] == 0 && p[2] == 0 && st&statusUnused == 0 && restFits(rest) {
				e.status = st
				return e, true
			}
		case p[0] == headErr && length >= errHead && isError(p):
			e.code = binary.LittleEndian.Uint16(p[1:])
			return e, true
		}
	}
	return ending{}, false
}

// restFits says whether what follows the warnings of an OK packet is a message and changes of the session, or less.
func restFits(rest []byte) bool {
	for range 2 {
		if len(rest) == 0 {
			return true
		}
		var ok bool
		if _, rest, ok = lenencText(rest); !ok {
			return false
		}
	}
	return len(rest) == 0
}

// isError says whether b is an ERR packet beyond doubt: its code has four or five digits, its SQLSTATE five letters and digits, its
// message is text, or was zeroed.
func isError(b []byte) bool {
	if code := binary.LittleEndian.Uint16(b[1:]); code < 1000 || code == progressCode || b[3] != '#' {
		return false
	}
	for _, c := range b[4:errHead] {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	message := b[errHead:]
	if len(bytes.Trim(message, "\x00")) == 0 {
		return true
	}
	for _, c := range message {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return utf8.Valid(message)
}
