package hostnames

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"
)

// The DNS record that verifies a hostname is
// TXT _stoa.<hostname> = stoa-verification=<token>.
const (
	recordLabel  = "_stoa"
	recordPrefix = "stoa-verification="
)

// VerificationFault is the reason why a hostname could not be verified, or "".
type VerificationFault string

// The faults. The first two are answers of the DNS. The third means that there was no
// answer.
const (
	RecordNotFound VerificationFault = "record_not_found"
	RecordMismatch VerificationFault = "record_mismatch"
	DNSUnavailable VerificationFault = "dns_unavailable"
)

const (
	dnsTimeout = 5 * time.Second
	dnsLookups = 32 // concurrent lookups of this process
)

// dnsChecker looks up verification records. It is safe for concurrent use.
type dnsChecker struct {
	resolver *net.Resolver
	slots    chan struct{}
	timeout  time.Duration // of one check
}

// newDNSChecker returns a checker that uses the server at host:port, or the system's
// servers if server is "".
func newDNSChecker(server string) dnsChecker {
	d := dnsChecker{resolver: &net.Resolver{PreferGo: true}, slots: make(chan struct{}, dnsLookups), timeout: dnsTimeout}
	if server != "" {
		d.resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
	}
	return d
}

// check looks for the token in the hostname's record. It takes no longer than
// its timeout. The result is meaningless when ctx has ended.
func (d dnsChecker) check(ctx context.Context, hostname, token string) VerificationFault {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return DNSUnavailable
	}
	// The trailing dot excludes the system's search domains.
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
		return RecordNotFound // the answer may be a wildcard record for another purpose
	}
	return RecordMismatch
}

// Message returns a message for the hostname's owner: what the record contains and what
// to do.
func (f VerificationFault) Message(record string) string {
	switch f {
	case RecordNotFound:
		return "There is no such TXT record at " + record + ". A new record may take a while to be seen everywhere; check its name and try again."
	case RecordMismatch:
		return "The TXT record at " + record + " has another value. Copy the value shown here into it."
	case DNSUnavailable:
		return "The name servers of this domain did not answer, or answered with an error. Try again in a moment; if it persists, ask your DNS provider."
	}
	return ""
}
