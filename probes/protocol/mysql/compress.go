// SPDX-License-Identifier: Apache-2.0

package mysql

import (
	"bytes"
	"compress/zlib"
	"io"
	"sync"

	"breadcrumb/probes"

	"github.com/klauspost/compress/zstd"
)

// The compressed protocol: frames of up to 16 MB, each of which holds a piece of the stream of packets, compressed or not.
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression_packet.html

const (
	frameSize = 7 // of a frame's header: length, sequence id, length when inflated (0: it is not compressed)

	// maxDeflated bounds the frames that are inflated, and maxInflated what comes out of one. The kernel side captures no more than
	// 16 KiB of what is said at once; servers compress what fills their buffer of 16 KiB, or a packet that is longer.
	maxDeflated = 32 << 10
	maxInflated = 256 << 10
)

// frame is one of the compressed protocol as it passes.
type frame struct {
	header [frameSize]byte
	have   int    // bytes of it
	start  start  // where it began
	length int    // of its payload
	left   int    // of which are to come
	size   int    // when inflated; 0: it is not compressed
	buf    []byte // the payload so far, if it comes in pieces
	missed bool   // some of it was not captured
	lost   bool   // where the next frame begins is not known
}

// parseFrame takes the header of a frame.
func parseFrame(b []byte) (length int, seq byte, size int) {
	return int(b[0]) | int(b[1])<<8 | int(b[2])<<16, b[3], int(b[4]) | int(b[5])<<8 | int(b[6])<<16
}

// deflated says whether b begins as zlib's or zstd's streams do.
func deflated(b []byte) bool {
	return len(b) >= 2 && b[0]&0x0f == 8 && (int(b[0])<<8|int(b[1]))%31 == 0 || isZstd(b)
}

func isZstd(b []byte) bool {
	return len(b) >= 4 && b[0] == 0x28 && b[1] == 0xb5 && b[2] == 0x2f && b[3] == 0xfd
}

// inflaters are shared by all connections: each takes some ten KiB, and few are needed at a time.
type inflaters struct{ pool sync.Pool }

type inflater struct {
	in   bytes.Reader
	zlib io.ReadCloser
	zstd *zstd.Decoder
	out  []byte
	more [1]byte
}

func (p *inflaters) get() *inflater {
	if i, ok := p.pool.Get().(*inflater); ok {
		return i
	}
	return new(inflater)
}

// put takes an inflater back; what it has put out is forgotten.
func (p *inflaters) put(i *inflater) {
	clear(i.out)
	p.pool.Put(i)
}

// inflate returns the size bytes that b holds, until the next call; nil if it holds anything else.
func (i *inflater) inflate(b []byte, size int) []byte {
	if size > maxInflated {
		return nil
	}
	if cap(i.out) < size {
		i.out = make([]byte, 0, size)
	}
	if isZstd(b) {
		if i.zstd == nil {
			d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxInflated))
			if err != nil {
				return nil
			}
			i.zstd = d
		}
		out, err := i.zstd.DecodeAll(b, i.out[:0])
		if err != nil || len(out) != size {
			return nil
		}
		i.out = out
		return out
	}
	i.in.Reset(b)
	var err error
	if i.zlib == nil {
		i.zlib, err = zlib.NewReader(&i.in)
	} else if r, ok := i.zlib.(zlib.Resetter); ok {
		err = r.Reset(&i.in, nil)
	}
	if err != nil {
		return nil
	}
	i.out = i.out[:size]
	if _, err := io.ReadFull(i.zlib, i.out); err != nil {
		return nil
	}
	if n, err := i.zlib.Read(i.more[:]); n != 0 || err != io.EOF { // it checks the sum at the end
		return nil
	}
	return i.out
}

// frames takes captured bytes of a direction in which frames pass.
func (d *decoder) frames(s *side, c *probes.Chunk, b []byte, at uint64, out probes.Out) error {
	f := &s.frame
	for len(b) > 0 {
		if f.lost {
			d.wipe(b)
			return nil
		}
		if f.have < frameSize {
			if f.have == 0 {
				f.start.set(at, c)
			}
			n := copy(f.header[f.have:], b)
			f.have += n
			b, at = b[n:], at+uint64(n)
			if f.have < frameSize {
				return nil
			}
			f.length, _, f.size = parseFrame(f.header[:])
			f.left, f.buf, f.missed = f.length, f.buf[:0], false
			if f.length == 0 {
				f.have, f.lost = 0, f.size > 0
			}
			continue
		}
		n := min(f.left, len(b))
		p := b[:n]
		whole := n == f.length
		f.left -= n
		b, at = b[n:], at+uint64(n)
		var err error
		switch {
		case f.size == 0:
			err = d.feed(s, c, p, f.start.pos, out)
		case whole:
			err = d.inflate(s, c, p, out)
		default:
			if !f.missed && f.length <= maxDeflated {
				f.buf = append(f.buf, p...)
			}
			d.wipe(p) // before it is known what it holds
			if f.left == 0 {
				err = d.inflate(s, c, f.buf, out)
				if cap(f.buf) > keepBuffer {
					f.buf = nil
				}
			}
		}
		if err != nil {
			d.wipe(p)
			d.wipe(b)
			return err
		}
		if f.left == 0 {
			f.have = 0
		}
	}
	return nil
}

// inflate goes on with what a frame holds, of which payload is all that was captured. That is zeroed if it holds anything that is to
// be: a recording then has less to tell than the connection had.
func (d *decoder) inflate(s *side, c *probes.Chunk, payload []byte, out probes.Out) error {
	f := &s.frame
	var b []byte
	i := d.shared.inflaters.get()
	defer d.shared.inflaters.put(i)
	if len(payload) == f.length && f.length <= maxDeflated {
		b = i.inflate(payload, f.size)
	}
	if b == nil {
		d.wipe(payload)
		return d.skip(s, c, uint64(f.size), f.start.pos, out)
	}
	before := d.wiped
	d.wiped = false
	err := d.feed(s, c, b, f.start.pos, out)
	if d.wiped {
		clear(payload)
	}
	d.wiped = d.wiped || before
	return err
}

// skipFrames passes over bytes of frames that were not captured.
func (d *decoder) skipFrames(s *side, c *probes.Chunk, n uint64, out probes.Out) error {
	f := &s.frame
	if f.lost {
		return nil
	}
	if f.have == frameSize {
		take := min(n, uint64(f.left))
		f.left -= int(take)
		n -= take
		f.missed = f.missed || take > 0
		if f.size == 0 && take > 0 {
			if err := d.skip(s, c, take, f.start.pos, out); err != nil {
				return err
			}
		}
		if f.left == 0 {
			f.have = 0
			if f.size > 0 {
				if err := d.skip(s, c, uint64(f.size), f.start.pos, out); err != nil {
					return err
				}
			}
		}
	}
	if n > 0 {
		f.lost = true
		return d.desync(s, c, s.pos, false, out)
	}
	return nil
}
