package tenantdb

import (
	"encoding/json"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// ConnectionDetails are what an owner gives to connect a store's own database: a
// connection string, or single fields. With an empty Type the string says which engine
// it is for.
type ConnectionDetails struct {
	Type             credential.Kind
	ConnectionString keyring.Secret

	Host     string
	Port     int
	Database string
	User     string
	Schema   string // of PostgreSQL; empty: the user's own
	Password keyring.Secret

	TLS           credential.TLSMode
	CACertificate string // PEM

	Adopt bool // see credential.Credentials

	ProjectURL     string         // of a Supabase project
	AnonKey        keyring.Secret // of a Supabase project
	ServiceRoleKey keyring.Secret // of a Supabase project
}

func (d ConnectionDetails) hasFields() bool {
	return d.Host != "" || d.Port != 0 || d.Database != "" || d.User != "" || d.Schema != "" || !d.Password.IsZero()
}

func (d ConnectionDetails) hasProject() bool {
	return d.ProjectURL != "" || !d.AnonKey.IsZero() || !d.ServiceRoleKey.IsZero()
}

// ReadDetails converts connection details to credentials, without a connection. It fails with
// invalid_request; the error never contains the connection string.
func (m *Manager) ReadDetails(d ConnectionDetails) (credential.Pasted, error) {
	var faults stoa.Invalid
	if d.Type == "" && !d.ConnectionString.IsZero() {
		d.Type = credential.Kind(credential.DetectEngine(d.ConnectionString, m.opts.Supabase.WithDefaults()))
		if d.Type == "" {
			faults.Add("connectionString", "does not say which database it is for; choose the type")
			return credential.Pasted{}, faults.Err()
		}
	}
	switch {
	case d.Type == credential.Managed:
		if d.hasFields() || d.hasProject() || d.Adopt || d.TLS != "" || d.CACertificate != "" || !d.ConnectionString.IsZero() {
			faults.Add("type", "a managed database takes no connection details")
		}
		return credential.Pasted{Credentials: credential.Credentials{Kind: credential.Managed}}, faults.Err()
	case d.Type == credential.KindSupabase && d.ConnectionString.IsZero():
		faults.Add("connectionString", "is required, unless there is a projectRef: copy it from the project's page, with the password in it")
		return credential.Pasted{}, faults.Err()
	case !d.ConnectionString.IsZero():
		if d.hasFields() || d.TLS != "" {
			faults.Add("connectionString", "give either this or the single fields, not both")
			return credential.Pasted{}, faults.Err()
		}
		pasted, err := m.Parse(credential.EngineName(d.Type), d.ConnectionString, d.CACertificate)
		c := &pasted.Credentials
		c.ProjectURL, c.AnonKey, c.ServiceRoleKey, c.Adopt = d.ProjectURL, d.AnonKey, d.ServiceRoleKey, d.Adopt
		return pasted, err
	}
	return credential.Pasted{Credentials: credential.Credentials{
		Kind: d.Type, Engine: credential.EngineName(d.Type), Host: d.Host, Port: d.Port,
		Database: d.Database, User: d.User, Password: d.Password, Schema: d.Schema, TLS: d.TLS, CACertificate: d.CACertificate,
		ProjectURL: d.ProjectURL, AnonKey: d.AnonKey, ServiceRoleKey: d.ServiceRoleKey, Adopt: d.Adopt,
	}}, nil
}

// sealedLifetime is how long details that were sealed can be used.
const sealedLifetime = 15 * time.Minute

// sealedDetails is the plaintext of Seal. The fields of ConnectionDetails hide secrets
// from JSON, so each is written by name.
type sealedDetails struct {
	Details  map[string]string
	SealedAt time.Time
}

// Seal encrypts the values of a form with connection details for owner, so that a
// browser can hold them between a test and the connection. Nothing is stored.
func (m *Manager) Seal(values map[string]string, owner string) (string, error) {
	plain, err := json.Marshal(sealedDetails{Details: values, SealedAt: m.master.Now()})
	if err != nil {
		return "", err
	}
	return m.ring.Seal(plain, "connection_details/"+owner)
}

// Unseal returns the values that Seal has encrypted for owner. It fails with
// invalid_request for another owner's and after 15 minutes.
func (m *Manager) Unseal(sealed, owner string) (map[string]string, error) {
	plain, err := m.ring.Open(sealed, "connection_details/"+owner)
	var d sealedDetails
	if err == nil {
		err = json.Unmarshal(plain, &d)
	}
	if err != nil || m.master.Now().Sub(d.SealedAt) > sealedLifetime {
		return nil, stoa.Errorf(stoa.InvalidRequest, "The tested connection is kept for 15 minutes only. Paste the connection string again.").WithCause(err)
	}
	return d.Details, nil
}
