// Package hostnamestest provides tests with a DNS server for the verification of
// hostnames.
package hostnamestest

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNS is a name server on this machine that knows TXT records and nothing
// else. It ends with its test.
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

// Put gives the name these TXT records and no others. Without any the name
// exists and has none.
func (d *DNS) Put(name string, values ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[strings.ToLower(name)+"."] = slices.Clone(values)
}

// Remove makes the name one that does not exist.
func (d *DNS) Remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.records, strings.ToLower(name)+".")
}

// Break has every question answered with an error; RCodeSuccess mends it.
func (d *DNS) Break(code dnsmessage.RCode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = code
}

// Silence has no question answered.
func (d *DNS) Silence(silent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent = silent
}

// Asked returns how often the name was asked for.
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
			return // closed
		}
		if answer := d.answer(buffer[:n]); answer != nil {
			_, _ = conn.WriteTo(answer, from) // who asked may be gone
		}
	}
}

// answer returns nil for what is not to be answered.
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

// strings255 cuts a text into the strings that a TXT record is made of.
func strings255(v string) []string {
	const most = 255
	var out []string
	for ; len(v) > most; v = v[most:] {
		out = append(out, v[:most])
	}
	return append(out, v)
}
