package container

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"filippo.io/age"
)

var testFormat = Format{Name: "container-test", Version: 1, MaxRecord: 1 << 20}

const testRecord = 'r'

func testWriter(t *testing.T, dst io.Writer) (*Writer, age.Identity) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(dst, testFormat, identity.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	return w, identity
}

// TestContentThatCompressesWell writes zeros, which are padded while the compressor's
// goroutines write, and reads them. Run with -race.
func TestContentThatCompressesWell(t *testing.T) {
	var dst bytes.Buffer
	w, identity := testWriter(t, &dst)
	body := make([]byte, testFormat.MaxRecord)
	records := int(2 * FreeExpansion / testFormat.MaxRecord)
	for range records {
		if err := w.Write(testRecord, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close('e', "end", 100); err != nil {
		t.Fatal(err)
	}
	// A reader refuses more than maxExpansion. We pad to a quarter of it, and not to much less.
	if least, most := 2*FreeExpansion/(maxExpansion/4), 3*FreeExpansion/(maxExpansion/4); dst.Len() < least || dst.Len() > most {
		t.Errorf("%d MiB of zeros take %d bytes, not %d to %d", records, dst.Len(), least, most)
	}
	r, err := NewReader(&dst, testFormat, 0, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range records {
		if kind, got, err := r.Record(); kind != testRecord || !bytes.Equal(got, body) || err != nil {
			t.Fatalf("a record %q of %d bytes: %v", kind, len(got), err)
		}
	}
	if kind, _, err := r.Record(); kind != 'e' || err != nil {
		t.Fatalf("the last record is %q: %v", kind, err)
	}
	if err := r.End(); err != nil {
		t.Error(err)
	}
}

// TestAbortedWriterDoesNotUseItsDestination aborts a writer whose compressor's goroutines
// write. Run with -race, which finds a write that runs while the destination is read.
func TestAbortedWriterDoesNotUseItsDestination(t *testing.T) {
	body := make([]byte, testFormat.MaxRecord)
	_, _ = rand.Read(body)
	for range 20 {
		var dst bytes.Buffer
		w, _ := testWriter(t, &dst)
		if err := w.Write(testRecord, body); err != nil {
			t.Fatal(err)
		}
		w.Abort()
		if dst.Len() == 0 {
			t.Fatal("nothing was written before the writer was aborted")
		}
		w.Abort() // has no effect
		if w.Write(testRecord, body) == nil || w.Close('e', "end", 100) == nil {
			t.Fatal("an archive that was aborted was continued")
		}
	}
}

// TestDestinationThatFails has an error of the destination returned, by Close at the latest.
func TestDestinationThatFails(t *testing.T) {
	full := errors.New("no space left")
	body := make([]byte, testFormat.MaxRecord)
	_, _ = rand.Read(body)
	for _, room := range []int{300, 100_000, 900_000, 1_000_000} {
		w, _ := testWriter(t, &limitedWriter{room: room, err: full})
		err := w.Write(testRecord, body)
		if err == nil {
			err = w.Close('e', "end", 100)
		}
		if !errors.Is(err, full) {
			t.Errorf("a destination with room for %d bytes: %v", room, err)
		}
	}
}

// limitedWriter fails with err when more than room bytes are written to it.
type limitedWriter struct {
	room int
	err  error
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.room -= len(p); l.room < 0 {
		return 0, l.err
	}
	return len(p), nil
}
