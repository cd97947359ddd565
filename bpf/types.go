// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Go names for what bpf2go makes of event.h.
type (
	ConnEvent     = bpfConnEvent
	DataEvent     = bpfDataEvent
	ProgressEvent = bpfProgressEvent
	EndEvent      = bpfEndEvent
	ProcessEvent  = bpfProcessEvent
	HandoffEvent  = bpfHandoffEvent
	JobEvent      = bpfJobEvent
	CallerEvent   = bpfCallerEvent
	MethodEvent   = bpfMethodEvent
	EventKind     = bpfEventKind
	EndHow        = bpfEndHow
	Stat          = bpfStat
	Answer        = bpfAnswer
	Target        = bpfTarget
	StreamLayout  = bpfStreamLayout
	NodeLoop      = bpfNodeLoop
	// Need is what the programs ask for, see AttachOnDemand.
	Need = bpfNeed
)

// Needs.
const (
	NeedSyscalls = bpfNeedNEED_SYSCALLS
	NeedEntry    = bpfNeedNEED_ENTRY
)

// Kinds of events.
const (
	EventConn     = bpfEventKindEVENT_CONN
	EventData     = bpfEventKindEVENT_DATA
	EventProgress = bpfEventKindEVENT_PROGRESS
	EventEnd      = bpfEventKindEVENT_END
	EventExit     = bpfEventKindEVENT_EXIT
	EventExec     = bpfEventKindEVENT_EXEC
	EventFork     = bpfEventKindEVENT_FORK
	EventListen   = bpfEventKindEVENT_LISTEN
	EventHandoff  = bpfEventKindEVENT_HANDOFF
	EventMoved    = bpfEventKindEVENT_MOVED
	EventJob      = bpfEventKindEVENT_JOB
	EventCgroup   = bpfEventKindEVENT_CGROUP
	EventCaller   = bpfEventKindEVENT_CALLER
	EventMethod   = bpfEventKindEVENT_METHOD
)

// Flags of a DataEvent.
const (
	FlagNamed          = uint32(bpfEventFlagFLAG_NAMED)
	FlagLost           = uint32(bpfEventFlagFLAG_LOST)
	FlagUnreadable     = uint32(bpfEventFlagFLAG_UNREADABLE)
	FlagHasSeq         = uint32(bpfEventFlagFLAG_HAS_SEQ)
	FlagCauseGoroutine = uint32(bpfEventFlagFLAG_CAUSE_GOROUTINE)
	FlagCauseInherited = uint32(bpfEventFlagFLAG_CAUSE_INHERITED)
	FlagURing          = uint32(bpfEventFlagFLAG_URING)
	FlagCauseTask      = uint32(bpfEventFlagFLAG_CAUSE_TASK)
	FlagHTTP2Server    = uint32(bpfEventFlagFLAG_HTTP2SERVER)
	FlagHTTP2Client    = uint32(bpfEventFlagFLAG_HTTP2CLIENT)
	FlagUntold         = uint32(bpfEventFlagFLAG_UNTOLD)
)

// Flags of a Target.
const (
	TargetGo     = uint32(bpfTargetFlagTARGET_GO)
	TargetURing  = uint32(bpfTargetFlagTARGET_URING)
	TargetJava   = uint32(bpfTargetFlagTARGET_JAVA)
	TargetNode   = uint32(bpfTargetFlagTARGET_NODE)
	TargetPython = uint32(bpfTargetFlagTARGET_PYTHON)
	TargetTokio  = uint32(bpfTargetFlagTARGET_TOKIO)
)

// VerdictKind is what user space decides on a connection.
type VerdictKind = bpfVerdictKind

// Verdicts.
const (
	VerdictMute           = bpfVerdictKindVERDICT_MUTE
	VerdictHTTPServer     = bpfVerdictKindVERDICT_HTTP_SERVER
	VerdictHTTPClient     = bpfVerdictKindVERDICT_HTTP_CLIENT
	VerdictHTTP2Server    = bpfVerdictKindVERDICT_HTTP2SERVER
	VerdictHTTP2Client    = bpfVerdictKindVERDICT_HTTP2CLIENT
	VerdictOpaque         = bpfVerdictKindVERDICT_OPAQUE
	VerdictDatabaseServer = bpfVerdictKindVERDICT_DATABASE_SERVER
	VerdictDatabaseClient = bpfVerdictKindVERDICT_DATABASE_CLIENT
)

// Kind is the kind of a record, or EVENT_NONE for one that is too short to have one.
func Kind(record []byte) EventKind {
	if len(record) < 16 {
		return bpfEventKindEVENT_NONE
	}
	return EventKind(binary.LittleEndian.Uint32(record))
}

// View is the record as its struct, without a copy; nil if the record is too short.
func View[T any](record []byte) *T {
	var t T
	if len(record) < int(unsafe.Sizeof(t)) {
		return nil
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(record)))
}

// DataPayload is the captured bytes of a data record: the first that moved, and the last. ok is false if
// the record does not hold what it says.
func DataPayload(record []byte, e *DataEvent) (head, tail []byte, ok bool) {
	at := int(unsafe.Sizeof(*e))
	h, t := int(e.Captured), int(e.Tail)
	if at+h+t > len(record) || uint64(h+t) > uint64(e.Total) {
		return nil, nil, false
	}
	return record[at : at+h : at+h], record[at+h : at+h+t : at+h+t], true
}

// Trim is the record without the room behind what it holds: data records are reserved in a few sizes.
func Trim(record []byte) []byte {
	if Kind(record) != EventData {
		return record
	}
	e := View[DataEvent](record)
	if e == nil {
		return record
	}
	return record[:min(len(record), int(unsafe.Sizeof(*e))+int(e.Captured)+int(e.Tail))]
}

// Text is the file name of an exec as it was given, which may be relative, or the path of a control group; it is cut at
// MaxText bytes.
func (e *ProcessEvent) Text() string { return unix.ByteSliceToString(e.Name[:]) }

// MaxText is how long what ProcessEvent.Text returns can be, in bytes.
const MaxText = len(ProcessEvent{}.Name) - 1
