package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/stoahq/stoa/internal/config"
)

type healthCmd struct {
	Live    bool          `help:"Only ask whether the process lives, not whether it can serve."`
	Timeout time.Duration `help:"How long to wait for the answer." default:"5s" placeholder:"TIME"`
	JSON    bool          `help:"Print JSON."`
}

// Help is shown by 'stoa health --help'.
func (healthCmd) Help() string {
	return "Asks the server that runs with these settings on this machine: at STOA_PRIVATE_LISTEN, if that is set, and otherwise at STOA_LISTEN and PORT. " +
		"It opens no database. Containers use it as their health check. The exit status is 1 when the server cannot serve or does not answer."
}

// Validate is called by kong after it has read the flags.
func (cmd healthCmd) Validate() error {
	if cmd.Timeout <= 0 {
		return errors.New("--timeout must be more than 0s")
	}
	return nil
}

// healthRecord is the output as JSON.
type healthRecord struct {
	OK         bool   `json:"ok"`
	URL        string `json:"url"`
	HTTPStatus int    `json:"httpStatus,omitempty"` // 0 without an answer
	Code       string `json:"code,omitempty"`
	Detail     string `json:"detail,omitempty"`
}

func (cmd healthCmd) Run(e *Env) error {
	url, err := healthURL(e.Cfg, cmd.Live)
	if err != nil {
		return err
	}
	r := cmd.ask(e.Ctx, url)
	if cmd.JSON {
		err = json.NewEncoder(e.Stdout).Encode(r)
	} else if r.OK {
		Printf(e.Stdout, "%s: ok\n", r.URL)
	}
	if err != nil || r.OK {
		return err
	}
	return fmt.Errorf("%s: %s", r.URL, r.Detail)
}

// healthURL returns the address at which a process on this machine reaches the server.
func healthURL(cfg *config.Config, live bool) (string, error) {
	listen, setting := cfg.PrivateListen, "STOA_PRIVATE_LISTEN"
	if listen == "" {
		listen, setting = cfg.Address(), "STOA_LISTEN and PORT"
	}
	address, err := netip.ParseAddrPort(listen)
	if err != nil {
		return "", fmt.Errorf("%s: %q is no address with a port, such as 127.0.0.1:9090", setting, listen)
	}
	if address.Port() == 0 {
		return "", fmt.Errorf("%s: with port 0 the server takes a free port, which this command cannot know; set a port", setting)
	}
	ip := address.Addr()
	if ip.IsUnspecified() { // the server listens on every address
		ip = map[bool]netip.Addr{true: netip.AddrFrom4([4]byte{127, 0, 0, 1}), false: netip.IPv6Loopback()}[ip.Is4()]
	}
	path := "/readyz"
	if live {
		path = "/healthz"
	}
	return "http://" + netip.AddrPortFrom(ip, address.Port()).String() + path, nil
}

// ask asks once. It uses no proxy and keeps no connection.
func (cmd healthCmd) ask(ctx context.Context, url string) healthRecord {
	ctx, cancel := context.WithTimeout(ctx, cmd.Timeout)
	defer cancel()
	r := healthRecord{URL: url}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		r.Detail = "no answer (" + err.Error() + "): is 'stoa serve' running with the same settings?"
		return r
	}
	defer resp.Body.Close()
	r.HTTPStatus, r.OK = resp.StatusCode, resp.StatusCode == http.StatusOK
	if r.OK {
		return r
	}
	const most = 16 << 10
	var problem struct{ Code, Detail string }
	body, _ := io.ReadAll(io.LimitReader(resp.Body, most))
	if json.Unmarshal(body, &problem) == nil {
		r.Code, r.Detail = problem.Code, problem.Detail
	}
	r.Detail = strings.TrimSpace(fmt.Sprintf("status %d. %s", r.HTTPStatus, r.Detail))
	return r
}
