package stores

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"
)

// What is looked for in the DNS: TXT _stoa.<hostname> = stoa-verification=<token>.
const (
	recordLabel  = "_stoa"
	recordPrefix = "stoa-verification="
)

// ProofFault is why a hostname could not be verified; "" when it was.
type ProofFault string

// The faults. The first two are answers of the DNS, the third is none.
const (
	RecordNotFound ProofFault = "record_not_found"
	RecordMismatch ProofFault = "record_mismatch"
	DNSUnavailable ProofFault = "dns_unavailable"
)

const (
	dnsTimeout = 5 * time.Second
	dnsLookups = 32 // at the same time, from this process
)

// dns looks for proofs.
type dns struct {
	resolver *net.Resolver
	slots    chan struct{}
	timeout  time.Duration // for one name
}

// newDNS asks the server at host:port, or the system's servers for "".
func newDNS(server string) dns {
	d := dns{&net.Resolver{PreferGo: true}, make(chan struct{}, dnsLookups), dnsTimeout}
	if server != "" {
		d.resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
	}
	return d
}

// UseDNS has custom hostnames looked up at the server host:port and not at
// the system's. Call it before the registry is in use.
func (r *Registry) UseDNS(server string) { r.dns = newDNS(server) }

// prove looks for the token. It takes no longer than its timeout. What it
// says is worth nothing when ctx has ended.
func (d dns) prove(ctx context.Context, hostname, token string) ProofFault {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return DNSUnavailable
	}
	// The dot at the end keeps the system's search domains out.
	values, err := d.resolver.LookupTXT(ctx, recordLabel+"."+hostname+".")
	var answer *net.DNSError
	switch {
	case errors.As(err, &answer) && answer.IsNotFound:
		return RecordNotFound
	case err != nil:
		return DNSUnavailable
	case slices.ContainsFunc(values, func(v string) bool { return strings.Trim(v, " \t\"") == recordPrefix+token }):
		return ""
	case !slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, recordPrefix) }):
		return RecordNotFound // a wildcard record of another purpose answers for every name
	}
	return RecordMismatch
}

// Message says to the hostname's owner what was met at the record and what to
// do.
func (f ProofFault) Message(record string) string {
	switch f {
	case RecordNotFound:
		return "There is no such TXT record at " + record + ". A new record may take a while to be seen everywhere; check its name and try again."
	case RecordMismatch:
		return "The TXT record at " + record + " has another value. Copy the value shown here into it."
	case DNSUnavailable:
		return "The name servers of this domain did not answer, or not in order. Try again in a moment; if it persists, ask your DNS provider."
	}
	return ""
}
