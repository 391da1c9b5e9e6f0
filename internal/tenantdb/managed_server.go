package tenantdb

import "github.com/stoahq/stoa/internal/tenantdb/credential"

// ManagedServer returns the operator's server, or nil if managed databases are embedded.
func (m *Manager) ManagedServer() *credential.Server { return m.opts.Managed }

// ManagedEngine returns the engine of new managed databases.
func (m *Manager) ManagedEngine() credential.EngineName {
	if m.opts.Managed == nil {
		return credential.SQLite
	}
	return m.opts.Managed.Admin.Engine
}

// WithServerTLS returns c with the current TLS settings of the operator's
// server, if c is a managed database on it.
func (m *Manager) WithServerTLS(c credential.Credentials) credential.Credentials {
	if s := m.opts.Managed; s != nil && c.Kind == credential.Managed && serverOf(c) == serverOf(s.Admin) {
		c.TLS, c.CACertificate = s.Admin.TLS, s.Admin.CACertificate
	}
	return c
}
