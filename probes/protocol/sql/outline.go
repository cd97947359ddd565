// SPDX-License-Identifier: Apache-2.0

package sql

import (
	"bytes"
)

const (
	// maxSummary is from the conventions.
	maxSummary = 255
	// maxDepth bounds the nesting in which tables are looked for and lists are folded.
	maxDepth = 64
	// maxExpressions bounds the names of common table expressions that are kept, so as not to take them for tables.
	maxExpressions = 16
)

// want says what the next name is, and with it which words may come before it.
type want uint8

const (
	wantFrom   want = 1 << iota // a table to read from, or a function
	wantInsert                  // a table to write to
	wantUpdate
	wantInto   // a table to make
	wantObject // an object to create, alter or drop
	wantUpkeep // a table to look after
	wantWith   // a common table expression
	wantCall   // a procedure, or a database
)

// passing are the words that may come before a name, by what is wanted.
var passing = [kClosed]want{
	kLateral: wantFrom, kOnly: wantFrom | wantUpdate | wantInsert | wantObject | wantUpkeep, kInto: wantInsert,
	kIgnore: wantInsert | wantUpdate, kLowPriority: wantInsert | wantUpdate, kHighPriority: wantInsert, kDelayed: wantInsert,
	kTemp: wantInto, kTemporary: wantInto, kUnlogged: wantInto, kTable: wantInto | wantUpkeep, kTables: wantUpkeep,
	kIf: wantObject | wantUpkeep, kNot: wantObject, kExists: wantObject | wantUpkeep, kConcurrently: wantObject, kFull: wantUpkeep,
	kFreeze: wantUpkeep, kVerbose: wantUpkeep, kAnalyze: wantUpkeep, kLocal: wantUpkeep, kNoWrite: wantUpkeep, kRecursive: wantWith,
}

// reserved are words that are no names, unless in quotes.
var reserved = [kClosed]bool{
	kSelect: true, kWith: true, kValues: true, kSet: true, kWhere: true, kOn: true, kUsing: true, kJoin: true, kFrom: true, kInto: true,
	kAs: true, kAnd: true, kOr: true, kNot: true, kGroup: true, kOrder: true, kUnion: true, kLimit: true, kAuthorization: true,
	kLeft: true, kRight: true, kInner: true, kCross: true, kNatural: true, kTo: true, kFor: true, kIn: true, kHaving: true,
}

// role is what a name is for a statement.
type role uint8

const (
	roleTable role = iota
	roleObject
	roleProcedure
)

// clause is where a query is.
type clause uint8

const (
	noClause   clause = iota
	fromClause        // a comma comes before another table
	withClause        // a comma comes before another common table expression
)

// frame is a level of parentheses.
type frame struct {
	clause clause
	reads  bool // a FROM names tables, and is not a part of a function's arguments
	using  bool // a USING names tables
	aside  bool // it is of a common table expression, or in one
	list   bool // it is a list that is folded

	several bool // an item has ended

	// Where, in what is shown, the item before and the present one are.
	before, beforeEnd, item uint16
}

// setting is where a SET is. Its value is never shown: it need not be a literal.
type setting uint8

const (
	noSetting     setting = iota
	settingHead           // a name comes next, or a word that says what kind of setting it is
	settingWords          // the value may come next, or another word of the kind
	settingName           // the name is there
	settingPart           // more of the name comes
	settingValue          // the value comes next
	settingHidden         // it does not end before the statement
)

// rows is where a VALUES is. Its first row stands for all.
type rows uint8

const (
	noRows   rows = iota
	rowNext       // a row begins
	rowIn         // one has begun
	rowAfter      // one has ended
	rowComma      // another one may come
	rowHead       // another one has begun, with the word ROW
)

// outline is what a text is about.
type outline struct {
	frames [maxDepth]frame
	depth  int
	prev   keyword // the token before
	opened bool    // it is an opening parenthesis
	rows   rows
	level  int // the depth of the VALUES

	// Of the statement.
	fresh     bool    // it has not begun
	verb      keyword // its first operation, but for those in common table expressions
	last      keyword // the one that came last
	kind      keyword // of object
	closed    bool    // there is no more to tell of it
	sub       bool    // another statement may begin in it
	seekKind  bool
	seekTable bool // the table is behind an ON
	routine   bool // it has a body of statements, which end with semicolons
	assigns   bool // a SET in it is no setting, but assigns to columns, and the like
	setting   setting
	secret    bool // the next word is a password, if it is one at all

	// The name that comes next, or that is coming.
	want      want
	wantDepth int
	role      role
	name      []byte
	named     bool // a part of it is there
	dotted    bool // another part follows

	expressions [maxExpressions][]byte
	known       int // of them

	// Of all statements.
	statements  int
	operation   operation // of the first
	mixed       bool      // another one has a different operation
	different   bool      // or summary
	first       []byte    // the first statement's summary
	summary     []byte    // this one's
	summaryFull bool
	tables      int    // 2: more than one
	table       []byte // the first
	procedures  int
	procedure   []byte
	context     []byte // the comment in which there is a trace context
}

// reset makes ready for another text.
func (o *outline) reset() {
	o.depth, o.prev, o.opened, o.rows = 0, no, false, noRows
	o.statements, o.operation, o.mixed, o.different, o.tables, o.procedures = 0, noOperation, false, false, 0, 0
	o.first, o.context = o.first[:0], nil
	o.next()
}

// next makes ready for another statement.
func (o *outline) next() {
	o.fresh, o.verb, o.last, o.kind, o.closed, o.sub, o.seekKind, o.seekTable, o.routine = true, no, no, no, false, false, false, false, false
	o.assigns, o.setting, o.secret, o.want, o.named, o.dotted, o.known = false, noSetting, false, 0, false, false, 0
	o.summary, o.summaryFull = o.summary[:0], false
	o.frames[0] = frame{}
}

// top is the present level of parentheses.
func (o *outline) top() *frame { return &o.frames[min(o.depth, maxDepth-1)] }

// put shows a token.
func (s *scanner) put(b []byte) {
	s.joined, s.marked = false, false
	if s.quiet != 0 {
		s.blank = false
		return
	}
	n := len(s.out)
	if n+len(b)+2 > maxText {
		s.quiet |= quietFull
		return
	}
	switch {
	case s.sep != 0:
		s.out = append(s.out, s.sep, ' ')
		s.sep = 0
	case s.blank && n > 0 && s.out[n-1] != '(' && s.out[n-1] != '[' && !(s.mysql && s.dashed()):
		s.out = append(s.out, ' ')
	}
	s.blank = false
	s.out = append(s.out, b...)
}

// dashed says that a blank would make a comment of what comes next, in MySQL.
func (s *scanner) dashed() bool {
	n := len(s.out)
	return n > 1 && s.out[n-1] == '-' && s.out[n-2] == '-'
}

var mark = []byte("?")

// literal shows that a literal is there, and returns where it ends.
func (s *scanner) literal(end int) int {
	s.value()
	if n := len(s.out); n > 0 && wordByte[s.out[n-1]] {
		s.blank = true
	}
	s.put(mark)
	s.marked = true
	return end
}

// value is called for a token that is neither a name nor a word.
func (s *scanner) value() {
	s.began()
	if s.setting != noSetting {
		s.hide()
	}
	s.secret = false
	if s.want != 0 && s.depth == s.wantDepth {
		s.finish(false)
	}
	s.rowsEnd()
	s.prev, s.opened = no, false
}

// token shows a token that is not looked at.
func (s *scanner) token(i, j int) {
	s.value()
	s.put(s.text[i:j])
}

// began notes that the statement has.
func (s *scanner) began() {
	if s.fresh {
		s.fresh, s.closed = false, true
	}
}

// hide begins not to show a setting's value.
func (s *scanner) hide() {
	if s.setting != settingHidden {
		s.setting = settingHidden
		s.put(mark)
		s.quiet |= quietSet
	}
}

// rowsEnd is called for tokens that do not go on with a VALUES.
func (s *scanner) rowsEnd() {
	if s.rows != noRows && s.depth == s.level {
		s.rows = noRows
		s.quiet &^= quietRow
	}
}

// sign takes a sign of one character.
func (s *scanner) sign(i int) {
	c := s.text[i]
	s.began()
	if s.setting != noSetting && s.setting != settingHidden {
		s.setSign(c)
	}
	s.secret = false
	if s.want != 0 && s.depth == s.wantDepth {
		if s.named && c == '.' && !s.dotted {
			s.name, s.dotted = append(s.name, '.'), true
		} else {
			s.finish(false)
		}
	}
	if s.rows != noRows {
		s.rowsEnd()
	}
	s.prev, s.opened = no, false
	s.put(s.text[i : i+1])
}

// setSign takes a sign in a setting.
func (s *scanner) setSign(c byte) {
	switch {
	case c == '=' && s.setting == settingName:
		s.setting = settingValue
	case c == ':' && s.setting == settingName:
	case c == '.' && s.setting == settingName, c == '@' && (s.setting == settingHead || s.setting == settingPart):
		s.setting = settingPart
	default:
		s.hide()
	}
}

// setWord takes a word in a setting, or a name in quotes. It reports whether it is shown.
func (s *scanner) setWord(k keyword) bool {
	switch s.setting {
	case settingHead:
		switch k {
		case kSession, kLocal, kGlobal, kPersist, kPersistOnly, kStatement:
		case kTransaction, kConstraints, kCharacteristics, kXML:
			s.setting = noSetting
		case kAuthorization, kRole, kTime, kNames, kCharacter, kCharset, kSchema, kPassword, kDefault, kResource, kCatalog:
			s.setting = settingWords
		default:
			s.setting = settingName
		}
		return true
	case settingWords:
		if k == kZone || k == kSet || k == kRole || k == kGroup {
			return true
		}
	case settingPart:
		s.setting = settingName
		return true
	case settingName:
		if k == kTo {
			s.setting = settingValue
			return true
		}
	case settingHidden:
		if k == kFor && s.mysql && s.verb == kSet && s.kind == kStatement && s.depth == 0 { // MariaDB's SET STATEMENT ... FOR
			s.setting, s.closed, s.sub = noSetting, false, true
			s.quiet &^= quietSet
			return true
		}
		return false
	case noSetting, settingValue:
	}
	s.hide()
	return false
}

// word takes a word.
func (s *scanner) word(k keyword, i, j int) {
	if k == no && !s.fresh && s.want == 0 && s.setting == noSetting && s.rows == noRows && !s.secret {
		s.prev, s.opened = no, false // as most are
		s.blank = s.blank || s.marked
		s.put(s.text[i:j])
		return
	}
	shown := true
	switch {
	case s.setting != noSetting:
		if k == kStatement && s.setting == settingHead && s.verb == kSet {
			s.kind = kStatement
		}
		shown = s.setWord(k)
	case s.secret && k != kPassword:
		s.secret = false
		s.put(mark)
		shown = false
	}
	if s.rows != noRows && s.depth == s.level {
		switch {
		case k == kRow && s.rows == rowComma:
			s.rows, s.sep = rowHead, 0
			s.quiet |= quietRow
		case k == kRow && s.rows == rowNext:
		default:
			s.rowsEnd()
		}
	}
	f := s.top()
	switch {
	case s.fresh:
		s.begin(k)
	case s.quiet&^quietFull != 0:
	case s.want != 0 && s.depth == s.wantDepth && s.nameWord(k, i, j):
	case k != no && !s.closed:
		s.guide(k, f)
	}
	if k != no && shown {
		s.watch(k, f)
	}
	s.prev, s.opened = k, false
	if shown {
		s.blank = s.blank || s.marked
		s.put(s.text[i:j])
	}
}

// watch looks for words that say how what follows is shown, whatever the statement.
func (s *scanner) watch(k keyword, f *frame) {
	switch k {
	case kValues, kValue:
		if s.rows == noRows {
			s.rows, s.level = rowNext, s.depth
		}
	case kSelect, kWith:
		f.list = false
	case kFor:
		// A user may be called mapping, but nobody FOR.
		if s.kind == kUser && (s.prev == kMapping || s.prev == kExists) && s.depth == 0 && s.quiet&^quietFull == 0 {
			s.kind = kMapping
			tell(s, words[kMapping])
		}
	case kSet:
		if s.setting == noSetting && s.prev != kCharacter && f.clause != withClause &&
			(s.routine || s.prev == kEnded || !s.assigns && (s.kind == no || s.depth == 0)) {
			s.setting = settingHead
		}
	case kBy, kPassword:
		switch {
		case k == kBy && s.prev == kIdentified:
			s.secret = true
		case k == kPassword && !s.mysql && (s.kind == kUser || s.kind == kRole || s.kind == kGroup || !s.assigns && s.kind == no):
			s.secret = true
		}
	case kAtomic, kNot:
		if s.prev == kBegin && (k == kAtomic || s.mysql) {
			s.routine = true // BEGIN ATOMIC of PostgreSQL, BEGIN NOT ATOMIC of MariaDB
		}
	}
}

// quoted takes a name in quotes.
func (s *scanner) quoted(i, j int) {
	s.began()
	shown := true
	switch {
	case s.setting != noSetting:
		shown = s.setWord(no)
	case s.secret:
		s.put(mark)
		shown = false
	}
	s.secret = false
	s.rowsEnd()
	if s.want != 0 && s.depth == s.wantDepth && s.quiet&^quietFull == 0 {
		s.nameWord(no, i, j)
	}
	s.prev, s.opened = no, false
	if shown {
		s.put(s.text[i:j])
	}
}

// nameWord takes a word where a name is wanted. It reports false if the word is none, and comes behind it.
func (s *scanner) nameWord(k keyword, i, j int) bool {
	switch {
	case s.named && !s.dotted:
		s.finish(false)
		return false
	case !s.named && passing[k]&s.want != 0:
		return true
	case !s.named && reserved[k]:
		s.want = 0
		return false
	case !s.named:
		s.name = s.name[:0]
	}
	s.name = append(s.name, s.text[i:j]...)
	s.named, s.dotted = true, false
	return true
}

// seek makes the next name one that is wanted.
func (s *scanner) seek(w want, r role) {
	s.want, s.wantDepth, s.role, s.named, s.dotted = w, s.depth, r, false, false
}

// finish takes the name that has come, if one has. call: a parenthesis follows.
func (s *scanner) finish(call bool) {
	w, whole := s.want, s.named && !s.dotted
	s.want, s.named, s.dotted = 0, false, false
	switch {
	case !whole:
	case w == wantWith:
		if s.known < maxExpressions {
			s.expressions[s.known] = append(s.expressions[s.known][:0], s.name...)
			s.known++
		}
	case w == wantFrom && (call || s.isExpression() || s.mysql && len(s.name) == 4 && bytes.EqualFold(s.name, dual)):
	case !printable(s.name):
	default:
		tell(s, s.name)
		switch s.role {
		case roleTable:
			switch {
			case s.tables == 0:
				s.tables, s.table = 1, append(s.table[:0], s.name...)
			case !bytes.Equal(s.table, s.name):
				s.tables = 2
			}
		case roleProcedure:
			if s.procedures++; s.procedures == 1 {
				s.procedure = append(s.procedure[:0], s.name...)
			}
		case roleObject:
		}
	}
}

var dual = []byte("DUAL") // MySQL's table of which there is none

func (s *scanner) isExpression() bool {
	for _, e := range s.expressions[:s.known] {
		if bytes.EqualFold(e, s.name) {
			return true
		}
	}
	return false
}

// printable says that a name, which may be in quotes, fits on a line.
func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// tell adds an operation or a name to the summary, if that has room for it, and for all before it.
func tell[T string | []byte](s *scanner, name T) {
	n := len(s.summary)
	if s.summaryFull || n+1+len(name) > maxSummary {
		s.summaryFull = true
		return
	}
	if n > 0 {
		s.summary = append(s.summary, ' ')
	}
	s.summary = append(s.summary, name...)
}

// open takes an opening parenthesis or bracket.
func (s *scanner) open(i int) {
	f := s.top()
	child := frame{
		aside: f.aside || f.clause == withClause && (s.prev == kAs || s.prev == kMaterialized),
		list:  s.prev == kIn || s.prev == kArray,
	}
	if s.setting != noSetting {
		s.hide()
	}
	s.secret = false
	if s.want != 0 && s.depth == s.wantDepth {
		switch {
		case s.named:
			s.finish(true)
		case s.want == wantFrom:
			child.clause = fromClause
			s.wantDepth++
		case s.want == wantUpkeep: // options
		default:
			s.want = 0
		}
	}
	if s.rows != noRows && s.depth == s.level {
		switch s.rows {
		case rowNext, rowHead:
			s.rows = rowIn
		case rowComma:
			s.rows, s.sep = rowIn, 0
			s.quiet |= quietRow
		default:
			s.rowsEnd()
		}
	}
	s.prev, s.opened = no, true
	s.put(s.text[i : i+1])
	if s.depth++; s.depth < maxDepth {
		child.item = uint16(len(s.out)) // below maxText
	} else {
		child = frame{}
	}
	*s.top() = child
}

// close takes a closing parenthesis or bracket.
func (s *scanner) close(i int) {
	s.began()
	if s.setting != noSetting {
		s.hide()
	}
	s.secret = false
	if s.want != 0 && s.depth == s.wantDepth {
		s.finish(false)
	}
	if f := s.top(); f.list {
		s.item(f)
	}
	if s.depth > 0 {
		s.depth--
	}
	if s.rows != noRows && s.depth < s.level {
		s.rows = noRows
		s.quiet &^= quietRow
	}
	s.flush()
	s.blank = false
	s.put(s.text[i : i+1])
	if s.rows == rowIn && s.depth == s.level {
		s.rows = rowAfter
		s.quiet &^= quietRow
	} else {
		s.rowsEnd()
	}
	s.prev, s.opened = kClosed, false
}

// flush shows a comma or a semicolon behind which nothing comes.
func (s *scanner) flush() {
	if s.sep == 0 || s.quiet != 0 {
		return
	}
	if len(s.out) == maxText {
		s.quiet |= quietFull
		return
	}
	s.out = append(s.out, s.sep)
	s.sep = 0
}

// comma takes a comma.
func (s *scanner) comma() {
	if s.setting != noSetting {
		s.hide()
	}
	s.secret, s.joined = false, false
	if s.want != 0 && s.depth == s.wantDepth {
		s.finish(false)
	}
	f := s.top()
	if f.list {
		s.item(f)
	}
	if s.rows == rowAfter && s.depth == s.level {
		s.rows = rowComma
	} else {
		s.rowsEnd()
	}
	switch {
	case f.clause == fromClause:
		s.seek(wantFrom, s.role)
	case f.clause == withClause && s.prev == kClosed:
		s.seek(wantWith, s.role)
	}
	s.prev, s.opened, s.blank = no, false, false
	if s.quiet == 0 {
		s.flush()
		s.sep = ','
	}
}

// semicolon takes a semicolon, which ends a statement, unless it is within one. Those that end nothing are not shown.
func (s *scanner) semicolon() {
	if s.want != 0 && s.depth == s.wantDepth {
		s.finish(false)
	}
	s.secret, s.joined, s.opened, s.blank = false, false, false, false
	if s.depth > 0 && !s.mysql { // in a rule's list of commands
		s.prev = kEnded
		if s.quiet == 0 {
			s.flush()
			s.sep = ';'
		}
		return
	}
	if s.routine {
		s.setting, s.frames[0] = noSetting, frame{}
	} else {
		s.endStatement()
	}
	s.quiet &^= quietSet | quietRow
	s.prev, s.rows, s.depth = no, noRows, 0
	if s.sep == ',' {
		s.flush()
	}
	if len(s.out) > 0 && s.quiet == 0 {
		s.sep = ';'
	}
}

// end takes the end of the text.
func (s *scanner) end() {
	s.finish(false)
	s.endStatement()
	if s.cut && s.quiet&quietFull == 0 {
		for d := 1; d <= s.depth && d < maxDepth; d++ {
			if f := &s.frames[d]; f.list && f.several {
				s.out = s.out[:f.beforeEnd] // a further item may be like the one before
				break
			}
		}
	}
	for {
		s.out = bytes.TrimRight(s.out, ",; ")
		if !s.mysql || !s.dashed() {
			break
		}
		s.out = s.out[:len(s.out)-2] // they would be a comment
	}
}

// endStatement ends a statement, if one has begun.
func (s *scanner) endStatement() {
	if s.fresh {
		s.next()
		return
	}
	op := s.does()
	if s.statements++; s.statements == 1 {
		s.operation, s.first = op, append(s.first[:0], s.summary...)
	} else {
		s.mixed = s.mixed || op != s.operation
		s.different = s.different || !bytes.Equal(s.first, s.summary)
	}
	s.next()
}

// does is the statement's operation.
func (o *outline) does() operation {
	if o.verb == kStart && o.kind == kTransaction {
		return startTransaction
	}
	return operationOf(o.verb, o.kind)
}

// item ends an item of a list. Of items that are alike, the first is shown, and of different values a question mark.
func (s *scanner) item(f *frame) {
	start, end := f.item, uint16(len(s.out))
	if s.quiet != 0 || start >= end {
		f.list = false
		return
	}
	fresh := true
	if item := s.out[start:]; f.several {
		before := s.out[f.before:f.beforeEnd]
		a, b := formOf(before), formOf(item)
		switch {
		case alike(before, item), a == someRow && b == someRow:
			s.out, fresh = s.out[:f.beforeEnd], false
		case a == someValue && b == someValue:
			s.out, fresh = append(s.out[:f.before], mark...), false
			f.beforeEnd = uint16(len(s.out))
		}
	}
	if fresh {
		f.before, f.beforeEnd = start, end
	}
	f.several = true
	f.item = uint16(len(s.out) + len(", "))
}

// alike says that two items are the same, but for the numbers of parameters.
func alike(a, b []byte) bool {
	for len(a) > 0 && len(b) > 0 {
		if a[0] != b[0] {
			return false
		}
		dollar := a[0] == '$'
		a, b = a[1:], b[1:]
		if dollar {
			a, b = bytes.TrimLeft(a, digits), bytes.TrimLeft(b, digits)
		}
	}
	return len(a) == len(b)
}

const digits = "0123456789"

// form is what an item of a list consists of.
type form uint8

const (
	someExpression form = iota
	someValue           // a literal or a parameter
	someRow             // several, in parentheses
)

func formOf(b []byte) form {
	f := someValue
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '(':
			f = someRow
		case c == '?', c == '$', c == '-', c == '+', c == ',', c == ' ', c == ')', c >= '0' && c <= '9':
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			j := i
			for j < len(b) && wordByte[b[j]] {
				j++
			}
			if k := lookup(b[i:j]); k != kNull && k != kTrue && k != kFalse && k != kDefault {
				return someExpression
			}
			i = j - 1
		default:
			return someExpression
		}
	}
	return f
}

// comment takes what is in a comment.
func (s *scanner) comment(b []byte) {
	if len(b) > len(traceparent) && bytes.Contains(b, traceparent) {
		s.context = b
	}
}

// begin takes a statement's first word.
func (s *scanner) begin(k keyword) {
	s.fresh = false
	switch {
	case k == no || k > kWith:
		s.closed = true
		switch k {
		case kIf, kCase, kLoop, kRepeat, kWhile, kFor:
			s.routine = s.mysql // MariaDB executes a routine's statements on their own
		}
	case k == kWith:
		s.with(s.top())
	default:
		s.act(k, s.top())
	}
}

// with takes the WITH of common table expressions.
func (s *scanner) with(f *frame) {
	f.clause, s.sub = withClause, false
	s.seek(wantWith, roleTable)
}

// act takes an operation.
func (s *scanner) act(k keyword, f *frame) {
	s.sub = false
	if s.verb == no && !f.aside {
		s.verb = k
	}
	s.last = k
	tell(s, words[k])
	f.clause = noClause
	switch k {
	case kSelect, kInsert, kReplace, kUpdate, kDelete, kMerge, kValues, kTable, kCopy, kLoad, kSignal, kResignal, kGrant, kRevoke, kShow:
		s.assigns = true
	}
	switch k {
	case kSelect:
		f.reads = true
	case kInsert, kReplace, kCopy:
		s.seek(wantInsert, roleTable)
	case kMerge:
		f.using = true
		s.seek(wantInsert, roleTable)
	case kUpdate:
		f.clause, f.reads = fromClause, true
		s.seek(wantUpdate, roleTable)
	case kDelete:
		f.reads, f.using = true, true
	case kTable:
		s.seek(wantFrom, roleTable)
	case kTruncate, kLock, kAnalyze, kVacuum, kOptimize:
		f.clause, s.closed = fromClause, true
		s.seek(wantUpkeep, roleTable)
	case kHandler:
		s.closed = true
		s.seek(wantInsert, roleTable)
	case kCall:
		s.closed = true
		s.seek(wantCall, roleProcedure)
	case kUse:
		s.closed = true
		s.seek(wantCall, roleObject)
	case kDesc, kDescribe:
		s.sub = true
		s.seek(wantFrom, roleTable)
	case kExplain:
		s.sub = true
	case kSet:
		s.closed, s.setting = true, settingHead
	case kCreate, kAlter, kDrop, kRename, kRefresh:
		s.seekKind = true
	case kValues, kLoad, kPrepare, kDeclare, kStart:
	default:
		s.closed = true
	}
}

// object takes the kind of object that is created, altered or dropped.
func (s *scanner) object(k keyword, f *frame) {
	if s.kind == kMaterialized {
		k = kMaterialized
	}
	s.kind = k
	s.seekKind = false
	tell(s, kindName(k))
	switch k {
	case kSystem, kDatabase, kRole, kUser, kGroup, kFunction, kProcedure, kRoutine: // they have settings
	default:
		s.assigns = true
	}
	r := roleObject
	switch k {
	case kTable, kView, kMaterialized:
		r = roleTable
		s.closed = s.last != kCreate
	case kIndex:
		if s.last == kCreate {
			s.seekTable = true
			return
		}
		s.closed = true
	case kFunction, kProcedure, kTrigger, kEvent, kPackage:
		s.routine = s.mysql && (s.last == kCreate || s.last == kAlter)
		s.closed = true
	case kUser, kRole, kGroup, kSystem, kCast, kOperator:
		s.closed = true // there is no name, or the name of a person
		return
	default:
		s.closed = true
	}
	if s.last == kDrop || s.last == kRename {
		f.clause = fromClause
	}
	s.seek(wantObject, r)
}

// guide takes a keyword within a statement.
func (s *scanner) guide(k keyword, f *frame) {
	if s.seekKind && k.isKind() {
		if k == kMaterialized {
			s.kind = k
		} else {
			s.object(k, f)
		}
		return
	}
	switch k {
	case kSelect:
		s.act(k, f)
	case kCreate:
		if s.sub {
			s.act(k, f)
		}
	case kInsert, kUpdate, kDelete, kReplace, kMerge, kValues, kTable:
		if s.sub || s.opened && f.aside || f.clause == withClause && s.prev == kClosed {
			s.act(k, f)
		} else if k == kValues {
			f.clause = noClause
		}
	case kWith:
		if s.sub || s.opened || s.prev == kAs || (s.verb == kInsert || s.verb == kReplace) && !f.reads {
			s.with(f)
		}
	case kFrom:
		if f.reads && s.prev != kDistinct {
			f.clause = fromClause
			s.seek(wantFrom, roleTable)
		}
	case kJoin, kStraightJoin:
		if f.clause == fromClause {
			f.using = false
			s.seek(wantFrom, roleTable)
		}
	case kUsing:
		if f.using {
			f.clause, f.using = fromClause, false
			s.seek(wantFrom, roleTable)
		}
	case kInto:
		switch {
		case s.verb == kLoad:
			s.closed = true
			s.seek(wantUpkeep, roleTable)
		case f.reads && s.verb == kSelect && !s.mysql:
			s.seek(wantInto, roleTable)
		}
	case kOn:
		if s.seekTable {
			s.closed = true
			s.seek(wantUpdate, roleTable)
		}
	case kAs:
		s.sub = s.sub || s.verb == kPrepare
	case kFor:
		s.sub = s.sub || s.verb == kDeclare
		f.clause = noClause
	case kTransaction:
		if s.prev == kStart {
			s.kind, s.closed = k, true
			tell(s, words[k])
		}
	case kWhere, kSet, kGroup, kOrder, kHaving, kLimit, kOffset, kUnion, kIntersect, kExcept, kReturning, kWindow, kFetch, kWhen,
		kConflict, kDuplicate:
		f.clause = noClause
	}
}
