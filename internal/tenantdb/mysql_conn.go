package tenantdb

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"net"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// mysqlConnector makes connections on which a screen checks every byte
// from the server.
type mysqlConnector struct {
	config *mysql.Config // without TLS and dial function
	dial   dial.Func
	tls    *tls.Config // nil for plaintext
	state  *sessionState
	log    *slog.Logger
	kills  chan struct{} // limits running kills: each uses one more connection
	queued chan struct{} // limits running and waiting kills
}

func newMySQLConnector(cfg *mysql.Config, dial dial.Func, encryption *tls.Config, state *sessionState, log *slog.Logger) *mysqlConnector {
	cfg.Net = "tcp"
	if encryption != nil {
		cfg.Net = "unix" // the driver considers it as secure as TLS; see mysqlLink
	}
	return &mysqlConnector{
		config: cfg, dial: dial, tls: encryption, state: state, log: log,
		kills: make(chan struct{}, 1), queued: make(chan struct{}, maxQueuedKills),
	}
}

// Driver implements driver.Connector.
func (m *mysqlConnector) Driver() driver.Driver { return &mysql.MySQLDriver{} }

// Connect implements driver.Connector. It takes at most connectTimeout. The
// driver's own timeout ends when the server has accepted the connection.
func (m *mysqlConnector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	plain := m.state.plain.Load()
	conn, err := m.open(ctx)
	if IsMySQL(err, unknownVariable) && !plain {
		m.state.plain.Store(true)
		conn, err = m.open(ctx)
	}
	if err != nil {
		return nil, err
	}
	id, err := connectionID(ctx, conn)
	if err != nil {
		_ = conn.Close()
		return nil, asConnectError(err)
	}
	conn.sessionConn = &cancellable{mysqlConn: conn.sessionConn.(mysqlConn), kill: func() { m.kill(id) }}
	conn.socket.(*mysqlSocket).checks.Established()
	return conn, nil
}

// open makes a connection, logs in and applies the settings of the session.
func (m *mysqlConnector) open(ctx context.Context) (conn *recoveringConn, err error) {
	err = m.state.passwords.signIn(ctx, keyring.NewSecret(m.config.Passwd), func(password keyring.Secret) (err error) {
		conn, err = m.signIn(ctx, password)
		return err
	})
	return conn, err
}

func (m *mysqlConnector) signIn(ctx context.Context, password keyring.Secret) (_ *recoveringConn, err error) {
	var socket *mysqlSocket
	defer func() {
		if err != nil && socket != nil {
			_ = socket.Close()
		}
	}()
	defer recoverDriver(m.log, &err)
	generation := m.state.generation.Load()
	cfg := m.config.Clone()
	cfg.Passwd = password.Reveal()
	if m.state.plain.Load() {
		cfg.Params = essentialMySQLSettings
	}
	cfg.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) {
		conn, err := m.dial(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		socket = newMySQLSocket(conn, secureBy(ctx, m.tls), password)
		return socket, nil
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		if socket != nil {
			err = socket.explain(err, false)
		}
		return nil, asConnectError(err)
	}
	return &recoveringConn{sessionConn: conn.(mysqlConn), socket: socket, explain: socket.explain, log: m.log, lifetime: newLifetime(m.state, generation), check: checkOf(socket.link)}, nil
}

// mysqlSocket is the connection that a driver's connection reads from and
// writes to.
type mysqlSocket struct {
	*screen.Conn
	link   *mysqlLink
	checks *screen.MySQL
}

func newMySQLSocket(conn net.Conn, secure func(net.Conn) (net.Conn, error), password keyring.Secret) *mysqlSocket {
	checks := screen.NewMySQL(func() { screen.RestartAnswer(conn) })
	link := &mysqlLink{Conn: conn, checks: checks, secure: secure, password: password}
	return &mysqlSocket{screen.NewConn(link, checks), link, checks}
}

// explain returns the cause of a driver's error, because the driver does not
// return the errors of the connection. driver.ErrBadConn means that no request
// was sent to the server yet.
func (s *mysqlSocket) explain(err error, decoding bool) error {
	var answer *mysql.MySQLError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, driver.ErrSkip), errors.Is(err, driver.ErrBadConn),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &answer):
		return err
	case s.Failure() != nil:
		return s.Failure()
	case s.link.fault != nil:
		return s.link.fault
	case decoding && !errors.Is(err, mysql.ErrInvalidConn):
		_ = s.Close()
		return &screen.ProtocolError{Rule: "a value that its column cannot have"}
	}
	return err
}

// mysqlConnectError marks any error that occurred while connecting.
type mysqlConnectError struct{ error }

func (e *mysqlConnectError) Unwrap() error { return e.error }

func asConnectError(err error) error { return &mysqlConnectError{err} }
