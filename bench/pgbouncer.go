package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// startPooler starts a PgBouncer in transaction mode before all databases of one owner. It opens
// at most limit connections to the server, for whichever databases are asked for. It returns the
// process and its host:port.
func startPooler(ctx context.Context, folder string, server *url.URL, owner *url.Userinfo, limit int) (*process, string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}
	password, _ := owner.Password()
	user := ""
	if os.Geteuid() == 0 {
		user = "user = nobody" // PgBouncer refuses to run as root
	}
	config, users := filepath.Join(folder, "pgbouncer.ini"), filepath.Join(folder, "pgbouncer-users.txt")
	// A user in [databases] would be another one for each database, each with a limit of its own.
	err = os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", owner.Username(), password), 0o600)
	if err == nil {
		err = os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
auth_type = trust
auth_file = %s
pool_mode = transaction
max_client_conn = 16000
default_pool_size = 20
max_user_connections = %d
server_tls_sslmode = disable
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
unix_socket_dir =
%s
`, server.Hostname(), server.Port(), port, users, limit, user), 0o600)
	}
	if err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "pgbouncer", "--quiet", config) //nolint:gosec // a file of this program
	cmd.Stderr = os.Stderr
	p, err := launch(cmd)
	if err != nil {
		return nil, "", err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 100 {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return p, address, conn.Close()
		}
		if err := p.ended(); err != nil {
			return nil, "", err
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	return nil, "", fmt.Errorf("pgbouncer did not listen at %s", address)
}

// through returns the shops with the addresses of their databases behind a pooler. PgBouncer
// before 1.21 keeps no prepared statements in this mode, so each query is sent with its text.
func through(pooler string, shops []shop) ([]shop, error) {
	pooled := make([]shop, len(shops))
	for i, s := range shops {
		u, err := url.Parse(s.databaseURL)
		if err != nil {
			return nil, fmt.Errorf("the address of %s's database is no URL", s.slug)
		}
		query := u.Query()
		query.Set("default_query_exec_mode", "exec")
		u.Host, u.RawQuery = pooler, query.Encode()
		pooled[i] = s
		pooled[i].databaseURL = u.String()
	}
	return pooled, nil
}
