// Package hostnamestest provides a DNS server for tests of the verification of hostnames.
package hostnamestest

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a name server on this machine that answers queries for TXT records only. It is
// closed when its test ends.
type DNS struct {
	Address string // host:port

	mu      sync.Mutex
	records map[string][]string
	broken  dnsmessage.RCode
	silent  bool
	asked   map[string]int
}

// NewDNS starts a server that answers every name with NXDOMAIN.
func NewDNS(t testing.TB) *DNS {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &DNS{Address: conn.LocalAddr().String(), records: map[string][]string{}, asked: map[string]int{}}
	var running sync.WaitGroup
	running.Go(func() { d.serve(conn) })
	t.Cleanup(func() {
		_ = conn.Close()
		running.Wait()
	})
	return d
}

// Put sets the TXT records of the name and replaces earlier ones. Without values the name
// exists and has no records.
func (d *DNS) Put(name string, values ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[strings.ToLower(name)+"."] = slices.Clone(values)
}

// Remove deletes the name, so that it does not exist.
func (d *DNS) Remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.records, strings.ToLower(name)+".")
}

// Break makes the server answer every query with an error. RCodeSuccess ends that.
func (d *DNS) Break(code dnsmessage.RCode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = code
}

// Silence sets whether the server leaves all queries unanswered.
func (d *DNS) Silence(silent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent = silent
}

// Asked returns the number of queries for the name.
func (d *DNS) Asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[strings.ToLower(name)+"."]
}

func (d *DNS) serve(conn net.PacketConn) {
	buffer := make([]byte, 1<<12)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return // the server is closed
		}
		if answer := d.answer(buffer[:n]); answer != nil {
			_, _ = conn.WriteTo(answer, from) // the client may have left
		}
	}
}

// answer returns the answer to a query, or nil to send none.
func (d *DNS) answer(question []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[strings.ToLower(q.Name.String())]++
	if d.silent {
		return nil
	}
	out := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: d.broken},
		Questions: m.Questions,
	}
	values, known := d.records[strings.ToLower(q.Name.String())]
	switch {
	case d.broken != dnsmessage.RCodeSuccess:
	case !known:
		out.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeTXT:
		for _, v := range values {
			out.Answers = append(out.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
				Body:   &dnsmessage.TXTResource{TXT: strings255(v)},
			})
		}
	}
	packed, err := out.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// strings255 splits a text into the strings of a TXT record, of at most 255 bytes each.
func strings255(v string) []string {
	const most = 255
	var out []string
	for ; len(v) > most; v = v[most:] {
		out = append(out, v[:most])
	}
	return append(out, v)
}
