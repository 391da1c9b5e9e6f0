package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// The baseline serves the number of its connects here.
const connectsPath = "/connects"

// platformConnects is the platform's metric of the same.
const platformConnects = `stoa_tenant_dials_total{outcome="ok"}`

// connectCounter reads how many connections to stores' databases a side has made so far.
type connectCounter func(context.Context) (int, error)

// countConnects runs a side with the connections that it makes meanwhile.
func countConnects(ctx context.Context, s side, count connectCounter) (result, error) {
	if count == nil {
		return runSide(ctx, s)
	}
	before, err := count(ctx)
	if err != nil {
		return result{}, err
	}
	res, err := runSide(ctx, s)
	if err != nil {
		return res, err
	}
	after, err := count(ctx)
	res.Connects = after - before
	return res, err
}

// hitRate is the share of a side's requests for which no connection was made.
func (r *report) hitRate(of string) figure {
	return r.each(of, func(x result) float64 { return 1 - float64(x.Connects)/float64(max(x.Sent, 1)) })
}

// cacheConnects reads the count of the baseline at an address.
func cacheConnects(address string) connectCounter {
	return func(ctx context.Context) (int, error) { return readCount(ctx, address, connectsPath, "") }
}

// connects reads the platform's count from its metrics.
func (p *platform) connects(ctx context.Context) (int, error) {
	return readCount(ctx, p.private, "/metrics", platformConnects)
}

// listenPrivately makes the platform serve its metrics from its next start on.
func (p *platform) listenPrivately(ctx context.Context) (setting string, err error) {
	port, err := freePort(ctx)
	p.private = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return "STOA_PRIVATE_LISTEN=" + p.private, err
}

// readCount reads the number after a name in an answer of lines.
func readCount(ctx context.Context, address, path, name string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	return countIn(res.Body, name)
}

func countIn(answer io.Reader, name string) (int, error) {
	lines := bufio.NewScanner(answer)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(n), err
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("no %q in the answer", name)
}
