package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// databaseAccessRoutes registers the calls with which an owner reaches a managed database.
func (a *api) databaseAccessRoutes() {
	tags := []string{"Stores"}
	const read = "With `access=read` it is the role for reports: it may read all tables, also those that are made later, and write none. " +
		"It has its own password, few connections, and a time limit for its statements where the server has one. "
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabaseWait, scope: scope(authz.ReadCredentials), maxBody: noBody, secret: true},
		huma.Operation{OperationID: "database.credentials", Method: http.MethodGet, Path: "/api/stores/{id}/database/credentials", Tags: tags,
			Summary: "Show how the store's own software connects to its managed database",
			Description: "For owners, in person; each answer is in the audit log, and must not be stored. " + read + "It is made when it is first asked for. " +
				"A database that is embedded in the platform has no address, and one of your own has its provider's: 404.",
			Errors: []int{401, 403, 404, 409, 422, 503}}, a.databaseCredentials)
	route(a, routeOptions{timeout: waitTimeout, rate: rateDatabaseWait, scope: scope(authz.ResetPassword), maxBody: noBody, key: keyKept},
		huma.Operation{OperationID: "database.resetPassword", Method: http.MethodPost, Path: "/api/stores/{id}/database/reset-password", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "Give the store's managed database a new password",
			Description: "For owners, in person. Shoppers notice nothing. Connections with the old password are closed: idle ones after two seconds, others after " +
				"ten. The store's own software needs the new one: read the credentials again. " + read +
				"Calls at the same time set one password. After 503 the platform tries again by itself.",
			Errors: []int{401, 403, 404, 409, 422, 503}}, a.resetDatabasePassword)
}

type accessInput struct {
	StorePath
	Access string `query:"access" enum:"full,read" default:"full" doc:"Which role: the store's own, or the one that may only read"`
}

type credentialsOutput struct{ Body credentialsView }

type credentialsView struct {
	Access           credential.Access     `json:"access" enum:"full,read"`
	Engine           credential.EngineName `json:"engine" enum:"postgresql,mysql"`
	ConnectionString string                `json:"connectionString" doc:"A URL with all of the fields but the certificate authority"`
	Host             string                `json:"host"`
	Port             int                   `json:"port"`
	User             string                `json:"user"`
	Password         string                `json:"password"`
	Database         string                `json:"database"`
	TLS              credentialsTLSView    `json:"tls"`
}

type credentialsTLSView struct {
	Mode          credential.TLSMode `json:"mode" enum:"verify-full,verify-ca,disable"`
	CACertificate *string            `json:"caCertificate" doc:"PEM; null when the authorities of the operating system vouch for the server"`
}

func (a *api) databaseCredentials(ctx context.Context, in *accessInput) (*credentialsOutput, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	access, err := credential.ParseAccess(in.Access)
	if err != nil {
		return nil, err
	}
	c, err := a.Provisioning.Credentials(ctx, principal(ctx), id, access)
	if err != nil {
		return nil, err
	}
	view := credentialsView{
		Access: access, Engine: c.Engine, ConnectionString: c.ConnectionString().Reveal(),
		Host: c.Host, Port: c.Port, User: c.User, Password: c.Password.Reveal(), Database: c.Database,
		TLS: credentialsTLSView{Mode: c.TLS},
	}
	if c.CACertificate != "" {
		view.TLS.CACertificate = &c.CACertificate
	}
	return &credentialsOutput{view}, nil
}

func (a *api) resetDatabasePassword(ctx context.Context, in *accessInput) (*struct{}, error) {
	id, err := storeID(in.ID)
	if err != nil {
		return nil, err
	}
	access, err := credential.ParseAccess(in.Access)
	if err != nil {
		return nil, err
	}
	return nil, a.Provisioning.ResetPassword(ctx, principal(ctx), id, access)
}
