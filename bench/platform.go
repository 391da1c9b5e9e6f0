package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// platform is the real binary. It can be restarted with other settings, at the same address
// and on the same data.
type platform struct {
	address string // host:port
	private string // of the listener with the metrics; empty: none
	process *process

	binary, folder, master string
	port                   int
}

const logName = "stoa.log"

// buildPlatform builds the binary into folder, which will also hold its data. It must run
// in the folder of this module.
func buildPlatform(ctx context.Context, folder, masterURL string) (*platform, error) {
	p := &platform{binary: filepath.Join(folder, "stoa"), folder: folder, master: masterURL}
	build := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", p.binary, "./cmd/stoa") //nolint:gosec // a folder of this program
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return p, fmt.Errorf("go build: %w", err)
	}
	var err error
	p.port, err = freePort(ctx)
	p.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port))
	return p, err
}

// start runs the platform with its defaults, except for the file locations and the given
// settings. It returns when the platform is ready.
func (p *platform) start(ctx context.Context, settings []string) error {
	log, err := os.Create(filepath.Join(p.folder, logName))
	if err != nil {
		return err
	}
	defer log.Close()                                                         //nolint:errcheck // the child has its own handle
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.binary, "serve") //nolint:gosec // built by this program
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.folder, log, log
	cmd.Env = append(p.environment(p.data()), "STOA_LISTEN=127.0.0.1", "PORT="+strconv.Itoa(p.port), "JWT_EXPIRES_IN=12h",
		"STOA_RATE_LIMIT_AUTH=0", "STOA_RATE_LIMIT_ADDRESS=0", "STOA_RATE_LIMIT_USER=0", "STOA_RATE_LIMIT_KEY=0", "STOA_RATE_LIMIT_STORE=0", "STOA_RATE_LIMIT_DATABASE=0")
	cmd.Env = append(cmd.Env, "STOA_QUOTA_STORES_UNVERIFIED=0", "STOA_QUOTA_STORES=0", "STOA_QUOTA_STORES_PER_HOUR=0",
		"STOA_QUOTA_MANAGED_DATABASES_UNVERIFIED=0", "STOA_QUOTA_MANAGED_DATABASES=0")
	cmd.Env = append(cmd.Env, settings...)
	if p.process, err = launch(cmd); err != nil {
		return err
	}
	return p.awaitReady(ctx)
}

// restart restarts the platform with other settings. The memory used for creating the
// stores is thus released.
func (p *platform) restart(ctx context.Context, settings []string) error {
	if err := p.process.ended(); err != nil {
		return err
	}
	p.process.stop()
	return p.start(ctx, settings)
}

func (p *platform) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := (&owner{address: p.address}).call(ctx, "GET", "/readyz", nil, nil)
		if err == nil {
			return nil
		}
		if ended := p.process.ended(); ended != nil {
			return ended
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stoa was not ready in time: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
