// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type record struct {
	Kind Kind
	Data string
}

// write makes a recording of the records, a frame of each so many of them.
func write(t testing.TB, frame int, records ...record) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		half := len(r.Data) / 2
		w.Write(r.Kind, []byte(r.Data[:half]), []byte(r.Data[half:]))
		if (i+1)%frame == 0 {
			w.flush()
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// read returns the records up to an error, which is nil at the end.
func read(file io.Reader) (records []record, err error) {
	r, err := NewReader(file)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		kind, data, err := r.Next()
		if err == io.EOF {
			return records, nil
		}
		if err != nil {
			return records, err
		}
		records = append(records, record{kind, string(data)})
		clear(data) // the caller may change what it got
	}
}

var small = []record{
	{Meta, `{"seed":1}`}, {Clock, "12345678"}, {Target, `{"pid":1}`}, {Event, "first"}, {Event, ""}, {Event, "third"},
	{Progress, "progress"}, {Batch, "12345678"}, {Kind(99), "of a later version"}, {Stop, "12345678"},
}

func TestRecordsComeBackAsTheyWereWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var many []record
	for range 5000 {
		data := make([]byte, rng.IntN(500))
		for i := range data {
			data[i] = byte(rng.IntN(4))
		}
		many = append(many, record{Kind(1 + rng.IntN(9)), string(data)})
	}
	for _, test := range []struct {
		name    string
		frame   int
		records []record
	}{
		{"nothing", 1, nil},
		{"small", 100, small},
		{"a frame each", 1, small},
		{"more than a frame", len(many) + 1, many},
		{"a record larger than a frame", 1, []record{{Event, string(make([]byte, 3*blockSize))}, {Stop, "x"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := write(t, test.frame, test.records...)
			for _, from := range []io.Reader{bytes.NewReader(file), iotest.OneByteReader(bytes.NewReader(file))} {
				got, err := read(from)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.records, got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			}
		})
	}
}

func TestTimesComeBackAsTheyWereWritten(t *testing.T) {
	for _, want := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		var file bytes.Buffer
		w, err := NewWriter(&file)
		if err != nil {
			t.Fatal(err)
		}
		w.WriteTime(Clock, want)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		records, err := read(&file)
		if err != nil || len(records) != 1 {
			t.Fatal(records, err)
		}
		if got, ok := Time([]byte(records[0].Data)); !ok || got != want {
			t.Errorf("%d is %d", want, got)
		}
	}
	for _, bad := range []string{"", "1234567", "123456789"} {
		if _, ok := Time([]byte(bad)); ok {
			t.Errorf("%q is a time", bad)
		}
	}
}

// TestFrameIsWrittenWhenItIsFull bounds what a killed agent loses.
func TestFrameIsWrittenWhenItIsFull(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file)
	if err != nil {
		t.Fatal(err)
	}
	const size = 1000
	n := 0
	for head := file.Len(); file.Len() == head; n++ {
		w.Write(Event, make([]byte, size))
	}
	if n*size > blockSize+size {
		t.Errorf("%d bytes were kept back", n*size)
	}
	records, err := read(&file)
	if err != nil || len(records) != n {
		t.Errorf("%d of %d records, %v", len(records), n, err)
	}
	w.Close()
}

func TestCutFileIsReadUpToItsLastWholeFrame(t *testing.T) {
	const frame = 3
	file := write(t, frame, small...)
	var ends []int // of frames; that of the header first
	for at := len(magic) + 1; ; {
		ends = append(ends, at)
		if at == len(file) {
			break
		}
		at += 4 + int(binary.LittleEndian.Uint32(file[at:]))
	}
	for n := range len(file) + 1 {
		records, err := read(bytes.NewReader(file[:n]))
		if n < ends[0] {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%d bytes: %v", n, err)
			}
			continue
		}
		whole, clean := 0, false
		for i, end := range ends {
			if end <= n {
				whole, clean = i, end == n
			}
		}
		want := small[:min(whole*frame, len(small))]
		if len(want) == 0 {
			want = nil
		}
		if diff := cmp.Diff(want, records); diff != "" {
			t.Errorf("%d bytes: (-want +got)\n%s", n, diff)
		}
		if clean && err != nil || !clean && !errors.Is(err, ErrCut) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestDamageIsAnErrorOrTheSameRecords(t *testing.T) {
	file := write(t, 3, small...)
	for i := range file {
		for _, bit := range []byte{1, 0x10, 0x80, 0xff} {
			bad := bytes.Clone(file)
			bad[i] ^= bit
			records, err := read(bytes.NewReader(bad))
			if err == nil && !cmp.Equal(small, records) {
				t.Errorf("byte %d ^ %#x: read as %q", i, bit, records)
			}
			// What comes before the damage is sound.
			if len(records) > len(small) || !cmp.Equal(small[:len(records)], records) && len(records) > 0 {
				t.Errorf("byte %d ^ %#x: begins with %q", i, bit, records)
			}
		}
	}
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	frame := func(records string) string {
		var file bytes.Buffer
		w, err := NewWriter(&file)
		if err != nil {
			t.Fatal(err)
		}
		w.buf = append(w.buf, records...)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return file.String()
	}
	for _, test := range []struct {
		name, file, want string
	}{
		{"empty", "", "not a recording of this version: no header"},
		{"short", magic, "not a recording of this version: no header"},
		{"text", "#!/bin/sh\nexit 0\n", "not a recording of this version: it does not begin as one"},
		{"later version", magic + "\x02", "not a recording of this version: it has format 2, this is 1"},
		{"huge frame", magic + "\x01\x00\x00\x00\xff", "not a recording of this version: a frame of 4278190080 bytes"},
		{"no zstd", magic + "\x01\x04\x00\x00\x00abcd", "decompress recording: invalid input: magic number mismatch"},
		{"record without a length", frame("\x01\x00"), "not a recording of this version: a record without a length"},
		{"record beyond its frame", frame("\x01\x05\x00\x00\x00abc"), "not a recording of this version: a record of 5 bytes in a frame that ends"},
		{"huge record", frame("\x01\xff\xff\xff\xffabc"), "not a recording of this version: a record of 4294967295 bytes in a frame that ends"},
	} {
		if _, err := read(bytes.NewReader([]byte(test.file))); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

func TestReadErrorIsNotACut(t *testing.T) {
	file := write(t, 3, small...)
	broken := errors.New("broken disk")
	for n := range file {
		_, err := read(io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// full is a disk with room for so many bytes.
type full struct{ room int }

var errFull = errors.New("disk full")

func (w *full) Write(b []byte) (int, error) {
	if len(b) > w.room {
		return 0, errFull
	}
	w.room -= len(b)
	return len(b), nil
}

func TestWriteErrorStays(t *testing.T) {
	if _, err := NewWriter(&full{}); !errors.Is(err, errFull) {
		t.Error(err)
	}
	for _, room := range []int{len(magic) + 1, len(magic) + 5} {
		w, err := NewWriter(&full{room})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 * blockSize / 1000 {
			w.Write(Event, make([]byte, 1000))
		}
		if cap(w.buf) > 2*blockSize+5000 {
			t.Errorf("%d bytes are kept for a full disk", cap(w.buf))
		}
		if err := w.Close(); !errors.Is(err, errFull) {
			t.Error(err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(write(f, 100, small...))
	f.Add(write(f, 1, small...))
	f.Add([]byte(magic + "\x01"))
	f.Fuzz(func(t *testing.T, file []byte) {
		records, err := read(bytes.NewReader(file))
		if err != nil {
			return
		}
		again, err := read(bytes.NewReader(write(t, 7, records...)))
		if err != nil || !cmp.Equal(records, again) {
			t.Errorf("written again: %v, %v", again, err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w, err := NewWriter(io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	event := make([]byte, 250)
	for i := range event {
		event[i] = fmt.Sprint(i)[0]
	}
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.LittleEndian.PutUint64(event[8:], uint64(i)*12345)
		w.Write(Event, event)
	}
	w.Close()
}
