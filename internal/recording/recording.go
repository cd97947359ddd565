// SPDX-License-Identifier: Apache-2.0

// Package recording writes what the kernel side told during a run to a file, and reads it again, so that
// a run can be repeated behind the ring buffer. It knows the framing and not what the events mean.
//
// A file is the magic and a format version, then zstd frames, each with a checksum, of records: one byte of
// kind, a four-byte little-endian length, and as many bytes. A file that ends in the middle of a frame
// (the agent was killed) can be read up to the last whole one.
package recording

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Kind says what a record is.
type Kind uint8

const (
	Meta     Kind = iota + 1 // JSON: about the run
	Event                    // a record of the kernel side, little-endian, its bodies zeroed
	Target                   // JSON: a process, before its first event
	Clock                    // int64: what to add to monotonic time to make it Unix time, ns
	Batch                    // int64: Unix time, ns, when a batch of events had been read
	Progress                 // how far a connection is: its id, position, time (64 bits each), direction (8)
	Stop                     // int64: Unix time, ns, when the run ended
	Drop                     // connections are given up: Unix time, ns, and their ids (64 bits each)
	Gone                     // a process id (32 bits): its events come too late from here on
)

const (
	magic   = "breadcrumb\x00"
	version = 1
	// blockSize is when a frame is closed: what a killed agent loses at most.
	blockSize = 256 << 10
	// maxFrame is beyond any frame; a length above it means that the file is damaged.
	maxFrame = 16 << 20
)

// ErrFormat says that a file is not a recording, or not one that this version can read.
var ErrFormat = errors.New("not a recording of this version")

// ErrCut says that a recording ends in the middle of a frame; what came before it is sound.
var ErrCut = errors.New("the recording is cut short")

// Writer writes a recording. It is used by one goroutine.
type Writer struct {
	w   io.Writer
	enc *zstd.Encoder
	buf []byte
	out []byte
	err error
}

// NewWriter starts a recording.
func NewWriter(w io.Writer) (*Writer, error) {
	if _, err := w.Write(append([]byte(magic), version)); err != nil {
		return nil, fmt.Errorf("write recording: %w", err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, fmt.Errorf("start compression: %w", err)
	}
	return &Writer{w: w, enc: enc}, nil
}

// Write adds a record made of the parts. The first error stays, and Close returns it.
func (w *Writer) Write(kind Kind, parts ...[]byte) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	w.buf = append(w.buf, byte(kind))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(n))
	for _, p := range parts {
		w.buf = append(w.buf, p...)
	}
	if len(w.buf) >= blockSize {
		w.flush()
	}
}

// WriteTime adds a record that holds one int64.
func (w *Writer) WriteTime(kind Kind, t int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(t))
	w.Write(kind, b[:])
}

func (w *Writer) flush() {
	if len(w.buf) == 0 || w.err != nil {
		w.buf = w.buf[:0]
		return
	}
	w.out = w.enc.EncodeAll(w.buf, w.out[:0])
	w.buf = w.buf[:0]
	var size [4]byte
	binary.LittleEndian.PutUint32(size[:], uint32(len(w.out)))
	if _, err := w.w.Write(size[:]); err != nil {
		w.err = fmt.Errorf("write recording: %w", err)
		return
	}
	if _, err := w.w.Write(w.out); err != nil {
		w.err = fmt.Errorf("write recording: %w", err)
	}
}

// Close writes what is left; the file below is the caller's to close.
func (w *Writer) Close() error {
	w.flush()
	return errors.Join(w.err, w.enc.Close())
}

// Reader reads a recording.
type Reader struct {
	r     *bufio.Reader
	dec   *zstd.Decoder
	in    []byte
	block []byte
	rest  []byte
}

// NewReader checks the header.
func NewReader(r io.Reader) (*Reader, error) {
	head := make([]byte, len(magic)+1)
	br := bufio.NewReaderSize(r, 1<<20)
	if _, err := io.ReadFull(br, head); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%w: no header", ErrFormat)
	} else if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrFormat)
	}
	if head[len(magic)] != version {
		return nil, fmt.Errorf("%w: it has format %d, this is %d", ErrFormat, head[len(magic)], version)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, fmt.Errorf("start decompression: %w", err)
	}
	return &Reader{r: br, dec: dec}, nil
}

// Close frees the decompressor.
func (r *Reader) Close() { r.dec.Close() }

// Next returns the next record, io.EOF after the last, ErrCut where the file breaks off. The bytes may be
// changed and are valid until the next call.
func (r *Reader) Next() (Kind, []byte, error) {
	for len(r.rest) == 0 {
		var size [4]byte
		if _, err := io.ReadFull(r.r, size[:]); err != nil {
			return 0, nil, cut(err, io.EOF)
		}
		n := int(binary.LittleEndian.Uint32(size[:]))
		if n > maxFrame {
			return 0, nil, fmt.Errorf("%w: a frame of %d bytes", ErrFormat, n)
		}
		r.in = slices.Grow(r.in[:0], n)[:n]
		if _, err := io.ReadFull(r.r, r.in); err != nil {
			return 0, nil, cut(err, ErrCut)
		}
		block, err := r.dec.DecodeAll(r.in, r.block[:0])
		if err != nil {
			return 0, nil, fmt.Errorf("decompress recording: %w", err)
		}
		r.block, r.rest = block, block
	}
	if len(r.rest) < 5 {
		return 0, nil, fmt.Errorf("%w: a record without a length", ErrFormat)
	}
	n := int(binary.LittleEndian.Uint32(r.rest[1:]))
	if n > len(r.rest)-5 {
		return 0, nil, fmt.Errorf("%w: a record of %d bytes in a frame that ends", ErrFormat, n)
	}
	kind, data := Kind(r.rest[0]), r.rest[5:5+n]
	r.rest = r.rest[5+n:]
	return kind, data, nil
}

// cut is the error of a read that found less than it should have; none is returned where nothing was left.
func cut(err, none error) error {
	switch {
	case errors.Is(err, io.EOF):
		return none
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrCut
	}
	return fmt.Errorf("read recording: %w", err)
}

// Time reads a record that WriteTime wrote.
func Time(data []byte) (int64, bool) {
	if len(data) != 8 {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(data)), true
}
