// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bytes"
	"strings"

	"breadcrumb/probes"
)

// detect looks for the server's greeting, or, on a connection that was open before, for a command. Four bytes, which are a length and
// zero, are not much, so a command must be one beyond doubt.
func (sh *shared) detect(_ probes.Direction, head []byte) (v probes.Verdict, requests bool) {
	if v := isGreeting(head); v == probes.Yes {
		return v, false
	} else if v == probes.Maybe && len(head) > headerSize {
		return v, false
	}
	if v := isCommand(head); v != probes.No {
		return v, true
	}
	return sh.isFrame(head), true
}

// longHead is how much must be seen of a command that is not whole. PostgreSQL's messages may look like commands, but those that do are
// shorter, and have a zero before that.
const longHead = 300

// isCommand says whether b, which may be cut off, is a command, or several.
func isCommand(b []byte) probes.Verdict {
	for first := true; ; first = false {
		switch {
		case len(b) == 0:
			if first {
				return probes.Maybe
			}
			return probes.Yes
		case len(b) >= 3 && b[2] > 0x0f: // a megabyte
			return probes.No
		case len(b) >= headerSize && b[3] != 0:
			return probes.No
		case len(b) <= headerSize:
			if len(b) >= 3 && b[0] == 0 && b[1] == 0 && b[2] == 0 {
				return probes.No
			}
			return probes.Maybe
		}
		length := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		payload := b[headerSize:]
		whole := len(payload) >= length
		if whole {
			payload = payload[:length]
		}
		kind := command(b[headerSize])
		if !kind.fits(length) {
			return probes.No
		}
		if !first && !whole {
			return probes.Yes
		}
		switch kind {
		case comQuery, comStmtPrepare:
			if !isSQL(payload[1:], kind == comQuery) {
				return probes.No
			}
			if !whole && len(b) >= longHead {
				return probes.Yes
			}
		case comStmtExecute:
			// No flags but those of cursors and of a count of parameters; and it is executed once.
			if len(payload) >= executeSize && (payload[5] > 0x0f || payload[6] != 1 || payload[7]|payload[8]|payload[9] != 0) {
				return probes.No
			}
		case comPing, comResetConnection, comStmtClose, comStmtReset:
		default:
			return probes.No
		}
		if !whole {
			return probes.Maybe
		}
		b = b[headerSize+length:]
	}
}

// isFrame says whether b, which may be cut off, is a frame of the compressed protocol with such a command in it.
func (sh *shared) isFrame(b []byte) probes.Verdict {
	if len(b) < frameSize { // a header comes in one piece, as does a payload
		return probes.No
	}
	if b[2] > 0x0f || b[3] != 0 || b[0] == 0 && b[1] == 0 && b[2] == 0 {
		return probes.No
	}
	length, _, size := parseFrame(b)
	if len(b) == frameSize {
		if size > 0 && size <= length {
			return probes.No
		}
		return probes.Maybe
	}
	payload := b[frameSize:]
	switch {
	case size == 0 && len(payload) > length:
		return probes.No
	case size == 0:
		return isCommand(payload)
	case !deflated(payload) || len(payload) > length || size > maxInflated:
		return probes.No
	case len(payload) < length:
		return probes.Maybe
	}
	i := sh.inflaters.get()
	defer sh.inflaters.put(i)
	inflated := i.inflate(payload, size)
	if len(inflated) == 0 {
		return probes.No
	}
	return isCommand(inflated)
}

// keywords are those with which statements begin.
var keywords = func() map[string]bool {
	m := map[string]bool{}
	for k := range strings.FieldsSeq(`ALTER ANALYZE BEGIN CALL CHECK COMMIT CREATE DEALLOCATE DELETE DESC DESCRIBE DO DROP EXECUTE EXPLAIN
		FLUSH GRANT HANDLER INSERT KILL LOAD LOCK OPTIMIZE PREPARE RELEASE RENAME REPAIR REPLACE RESET REVOKE ROLLBACK SAVEPOINT SELECT
		SET SHOW START TABLE TRUNCATE UNLOCK UPDATE USE VALUES WITH XA`) {
		m[k] = true
	}
	return m
}()

const longestKeyword = len("DEALLOCATE")

// isSQL says whether b, which may be cut off, begins as a statement does, and is text. attributes: it may have query attributes.
func isSQL(b []byte, attributes bool) bool {
	if attributes && len(b) >= 2 && b[0] == 0 && b[1] == 1 { // none, of which there is one set
		b = b[2:]
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return false
	}
	w := words{b}
	for w.space(); len(w.text) > 0 && w.text[0] == '('; w.space() {
		w.text = w.text[1:]
	}
	word := w.next()
	if len(word) > longestKeyword {
		return false
	}
	var upper [longestKeyword]byte
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	return keywords[string(upper[:len(word)])]
}
