// SPDX-License-Identifier: Apache-2.0

package correlate

// links are a node's neighbours in a list.
type links struct{ prev, next *node }

// list is all nodes in one state, in the order in which they came to be in it.
type list struct {
	first, last *node
	n           int
}

func (l *list) push(n *node) {
	n.line = links{prev: l.last}
	if l.last == nil {
		l.first = n
	} else {
		l.last.line.next = n
	}
	l.last = n
	l.n++
}

func (l *list) remove(n *node) {
	if n.line.prev == nil {
		l.first = n.line.next
	} else {
		n.line.prev.line.next = n.line.next
	}
	if n.line.next == nil {
		l.last = n.line.prev
	} else {
		n.line.next.line.prev = n.line.prev
	}
	n.line = links{}
	l.n--
}

// siblings are the nodes that wait for the same parent, in the order in which they ended.
type siblings struct{ first, last *node }

func (l *siblings) push(n *node) {
	n.family = links{prev: l.last}
	if l.last == nil {
		l.first = n
	} else {
		l.last.family.next = n
	}
	l.last = n
}

func (l *siblings) remove(n *node) {
	if n.family.prev == nil {
		l.first = n.family.next
	} else {
		n.family.prev.family.next = n.family.next
	}
	if n.family.next == nil {
		l.last = n.family.prev
	} else {
		n.family.next.family.prev = n.family.prev
	}
	n.family = links{}
}
