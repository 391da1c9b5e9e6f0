package httpapi

import (
	"net/http"
	"strings"

	"github.com/stoahq/stoa"
)

// codeInfo is what the documentation says of a code, and its status.
type codeInfo struct {
	code   stoa.Code
	status int
	cause  string
	remedy string
}

// codes lists every code of a problem document. The statuses of answers, the enumeration in
// the OpenAPI document and the pages in docs/errors come from it.
var codes = []codeInfo{
	{stoa.InvalidRequest, http.StatusUnprocessableEntity, "A field, parameter or header is wrong. The status is 400 when the body is not JSON.", "Correct what `errors` lists: it names all fields that are wrong."},
	{stoa.AccountSuspended, http.StatusForbidden, "An operator of the platform has suspended the account. The reason was mailed to its address.", "Write to the operator."},
	{stoa.EmailTaken, http.StatusConflict, "An account with this address exists.", "Sign in, or ask for a new password with `POST /api/auth/forgot-password`."},
	{stoa.EmailUnverified, http.StatusForbidden, "The account's e-mail address has to be verified first.", "Follow the link in the mail; `POST /api/auth/verify-email/resend` sends another one."},
	{stoa.InvalidCredentials, http.StatusUnauthorized, "E-mail address, password or code is wrong. The answer does not say which.", "Try again, or ask for a new password with `POST /api/auth/forgot-password`."},
	{stoa.ReauthenticationRequired, http.StatusForbidden, "The console asks again who you are before it shows secrets or makes changes that cannot be undone.", "Enter the password or the code of the second factor."},
	{stoa.SecondFactorRequired, http.StatusUnauthorized, "The password is right, and the account has a second factor.", "Within 5 minutes send `challengeToken` with a code to `POST /api/auth/login/second-factor`, or to `POST /api/auth/passkeys/login/begin` for a passkey."},
	{stoa.TokenInvalid, http.StatusUnauthorized, "The token or API key is missing, not valid, used already, or revoked; `detail` says whether it is missing.", "For a token or link out of a mail, or of an invitation: ask for another one. For a call: send `Authorization: Bearer` with the `accessToken` of a new sign-in, or with an API key of the store."},
	{stoa.TokenExpired, http.StatusUnauthorized, "The token has expired.", "Call `POST /api/auth/refresh` with the refresh token or sign in; for a token or link out of a mail, ask for another mail; for an API key, make another one."},
	{stoa.SessionRevoked, http.StatusUnauthorized, "The session has ended.", "Sign in again."},
	{stoa.Forbidden, http.StatusForbidden, "The caller's role in the store, or the scopes of the API key, do not allow this.", "Ask an owner or admin of the store for the role, or use a key with the scope that `detail` names."},
	{stoa.NotFound, http.StatusNotFound, "Nothing has this address or id.", "Check the address against the OpenAPI document, and the id against the list it came from."},
	{stoa.MethodNotAllowed, http.StatusMethodNotAllowed, "The address takes other methods.", "Use one of those in the header `Allow`."},
	{stoa.StoreNotFound, http.StatusNotFound, "There is no such store, or the caller does not belong to it. At a hostname: it leads to no store.", "Check the store's id, `X-Store-Id` or hostname, and whether the caller is a member."},
	{stoa.StorePendingDatabase, http.StatusConflict, "The store has no database yet, or is being set up.", "Connect a database with `POST /api/stores/{id}/connect-database`, or wait for the run to end."},
	{stoa.StoreSuspended, http.StatusServiceUnavailable, "The store is suspended.", "An owner resumes it with `POST /api/stores/{id}/resume`; one that the operator has suspended, the operator."},
	{stoa.AlreadyConnected, http.StatusConflict, "The store has a database.", "To use another one, move the store with `POST /api/stores/{id}/moves`."},
	{stoa.ProvisioningInProgress, http.StatusConflict, "A provisioning run of this store is in progress.", "Wait for its end: `GET /api/stores/{id}/provisioning`."},
	{stoa.ProvisioningCrashed, http.StatusServiceUnavailable, "The platform stopped unexpectedly, twice in a row, while it set up this database.", "Try again once; then use another database and tell the operator the id of the run."},
	{stoa.DatabaseUnreachable, http.StatusUnprocessableEntity, "The database server does not answer, or has no such database.", "Check host, port and database name, and that the server accepts connections from the platform."},
	{stoa.DatabaseAuthFailed, http.StatusUnprocessableEntity, "The database server refuses the user or the password.", "Check both; a password in a connection string must be percent-encoded."},
	{stoa.DatabaseTLSFailed, http.StatusUnprocessableEntity, "TLS to the database server failed. `detail` says whether the name, the authority or the expiry is wrong.", "Correct the certificate, send the server's authority as `tls.caCertificate`, or choose another `tls.mode` (`sslmode` in a connection string)."},
	{stoa.DatabaseHostForbidden, http.StatusUnprocessableEntity, "The platform does not connect to this address.", "Use a public address of the server; the operator can allow private networks."},
	{stoa.DatabaseNotEmpty, http.StatusUnprocessableEntity, "The database holds other tables, or another store.", "Use an empty database or schema. To connect a database that holds tables of your own, send `adopt`: they stay as they are."},
	{stoa.DatabaseVersionUnsupported, http.StatusUnprocessableEntity, "The server is too old, or the database's encoding cannot hold every character.", "Upgrade the server, or make the database with the encoding that `detail` names."},
	{stoa.DatabasePermissionDenied, http.StatusUnprocessableEntity, "The database user lacks rights, or the server is read-only.", "Grant the rights that `detail` names, or connect to the primary server."},
	{stoa.DatabaseCredentialsLost, http.StatusServiceUnavailable, "The stored credentials cannot be decrypted with the keys of the platform.", "The operator restores the encryption key."},
	{stoa.DatabaseExposed, http.StatusUnprocessableEntity, "The HTTP API of the Supabase project could read the store's tables.", "Remove the schema that `detail` names from the exposed schemas of the project, and revoke the rights of its public roles."},
	{stoa.DatabaseNoProgress, http.StatusUnprocessableEntity, "The server confirms changes and does not keep them, or never grants the migration lock.", "Look for triggers, proxies or locks on the server that prevent changes."},
	{stoa.DatabaseContentInvalid, http.StatusUnprocessableEntity, "A value in Stoa's tables cannot be used. `detail` says where.", "Correct the value in the database."},
	{stoa.DatabaseSettingRefused, http.StatusUnprocessableEntity, "A setting of the server cannot be overridden and does not work with Stoa. `detail` names it.", "Change the setting at the server or of the database user."},
	{stoa.TenantError, http.StatusUnprocessableEntity, "The store's database refused a statement. `detail` has the server's code. The status is 503 when a repetition can succeed.", "Repeat the call after `Retry-After`; otherwise look at the database: `POST /api/stores/{id}/database/test`."},
	{stoa.TenantUnavailable, http.StatusServiceUnavailable, "The store's database cannot be used at the moment.", "Repeat the call after `Retry-After`. If it lasts, `GET /api/stores/{id}` says why in `database.lastError`."},
	{stoa.HostnameTaken, http.StatusConflict, "The hostname or slug belongs to another store, or is reserved.", "Choose another one."},
	{stoa.HostnameInvalid, http.StatusUnprocessableEntity, "This is no usable hostname, or it is not verified yet.", "Check the spelling; set the DNS record and verify the hostname before it becomes the primary one."},
	{stoa.InsufficientCredits, http.StatusPaymentRequired, "Fewer credits are available than this costs. Nothing has changed.", "Buy credits with `POST /api/credits/purchase`, or let them be bought automatically."},
	{stoa.IdempotencyConflict, http.StatusConflict, "The idempotency key was used for a different request.", "Use a new key for a new request, and the same request with the same key."},
	{stoa.IdempotencyInProgress, http.StatusConflict, "The first request with this idempotency key is still being carried out.", "Repeat the call after `Retry-After`: it gets the answer of the first one."},
	{stoa.EditConflict, http.StatusPreconditionFailed, "It was changed after the version that `If-Match` names.", "Read it again, make the change to what it is now, and send the new `ETag`."},
	{stoa.WebhookNotEnabled, http.StatusConflict, "The webhook endpoint is paused or disabled: nothing is sent to it.", "Enable it with `PATCH` and `{\"enabled\":true}`; `disabledReason` says why the platform has disabled it."},
	{stoa.WebhookReplaying, http.StatusConflict, "What was asked for before waits for this webhook endpoint still.", "Wait until it is sent: `replaying` and `waiting` of the endpoint tell, and the deliveries in the state waiting."},
	{stoa.HoldNotFound, http.StatusNotFound, "There is no such hold in this store.", "Check its id: `GET /api/credits/holds`."},
	{stoa.HoldNotOpen, http.StatusConflict, "The hold was captured or released, or has expired.", "Make a new hold."},
	{stoa.PaymentsUnavailable, http.StatusServiceUnavailable, "No payment provider is configured, or it does not answer.", "Try again later with the same `Idempotency-Key`; the operator configures the provider."},
	{stoa.PaymentRefused, http.StatusUnprocessableEntity, "The payment provider refuses the request for good.", "`detail` has the provider's reason."},
	{stoa.SupabaseNotConfigured, http.StatusServiceUnavailable, "The operator has not set up Supabase.", "Connect the project with its connection string, or ask the operator."},
	{stoa.SupabaseNotConnected, http.StatusConflict, "The store is not connected to a Supabase account.", "Open `GET /api/supabase/authorize` in a browser and allow the connection."},
	{stoa.SupabaseReconnect, http.StatusConflict, "Supabase no longer accepts the connection.", "Connect the account again."},
	{stoa.SupabaseUnavailable, http.StatusServiceUnavailable, "Supabase's Management API does not answer.", "Try again after `Retry-After`."},
	{stoa.SupabaseRefused, http.StatusUnprocessableEntity, "Supabase refuses the request. `detail` lists what exists.", "Choose one of them, or correct the cause in the Supabase account."},
	{stoa.SupabaseProjectPaused, http.StatusUnprocessableEntity, "The project is paused.", "Resume it at Supabase, then repeat the call."},
	{stoa.SupabaseProjectStarting, http.StatusUnprocessableEntity, "The project is starting.", "Repeat the call in some minutes."},
	{stoa.SupabaseProjectRemoved, http.StatusUnprocessableEntity, "The project does not exist any more, or the account does not see it.", "Choose another project, or connect the account that has it."},
	{stoa.SupabaseProjectFailed, http.StatusUnprocessableEntity, "The project is in a failed state at Supabase.", "Look at the project there, or choose another one."},
	{stoa.SupabaseProjectUnknown, http.StatusUnprocessableEntity, "The database does not answer, and the account has to be connected again to see why.", "Connect the account again."},
	{stoa.ArchiveDamaged, http.StatusUnprocessableEntity, "The file is no archive, was changed or ends too early.", "Use another archive, or download it again."},
	{stoa.ArchiveKeyUnknown, http.StatusUnprocessableEntity, "None of the platform's keys opens the archive.", "Send the key that was shown at the download; the operator restores an earlier key of the platform."},
	{stoa.ArchiveTooNew, http.StatusUnprocessableEntity, "A newer release of Stoa wrote the archive.", "Upgrade this installation."},
	{stoa.ArchiveOfOtherStore, http.StatusConflict, "The archive is of another store.", "Make a new store of it: clone it."},
	{stoa.MigrationFailed, http.StatusServiceUnavailable, "The platform's migrations cannot run in this database.", "Tell the operator, whose log has the cause. For a new store, another kind of database may work."},
	{stoa.MoveRefused, http.StatusUnprocessableEntity, "The store cannot be moved to that database, or the move cannot be aborted or rolled back any more.", "`detail` says why and what to do."},
	{stoa.MoveInProgress, http.StatusConflict, "The store is being moved to another database, or its database is being changed.", "Wait for the end, or abort the move."},
	{stoa.ArchiveRefused, http.StatusUnprocessableEntity, "A database cannot be archived, or an archive cannot be loaded. `detail` names the table and the row, or the limit that the operator has set.", "Correct the row at its source, or use the same engine."},
	{stoa.ArchiveStorageFailed, http.StatusBadGateway, "The folder or the object storage of the archives failed. `detail` says how.", "Try again; the operator looks at the storage."},
	{stoa.BackupInUse, http.StatusConflict, "A restore needs the archive, so it cannot be deleted now.", "Delete it when the restore has ended."},
	{stoa.RestoreInProgress, http.StatusConflict, "An archive is being restored into the store.", "Wait for its end: `GET /api/stores/{id}/backups/restore`."},
	{stoa.QuotaExceeded, http.StatusForbidden, "A quota is used up. `quota` has its name, limit and use.", "Delete what is not needed any more, or ask the operator for more."},
	{stoa.RateLimited, http.StatusTooManyRequests, "There were too many requests. `RateLimit` and `RateLimit-Policy` say how many there may be.", "Repeat the call after `Retry-After`."},
	{stoa.PlatformUnavailable, http.StatusServiceUnavailable, "The master database cannot serve. A call that moves credits may have been carried out.", "Repeat the call after `Retry-After`, with its idempotency key."},
	{stoa.PayloadTooLarge, http.StatusRequestEntityTooLarge, "The body is too large.", "Send less; `detail` has the limit."},
	{stoa.VersionUnknown, http.StatusBadRequest, "The header `Stoa-Version` names no version of the API.", "Send one of the versions that `detail` lists, or none for the newest one."},
	{stoa.URITooLong, http.StatusRequestURITooLong, "The address is too long.", "Send a shorter one."},
	{stoa.Internal, http.StatusInternalServerError, "The platform has a fault.", "Tell the operator the `requestId`: the log has the cause under it."},
}

// infos are the codes by name. A code that is missing has the status 500.
var infos = infosOf(codes)

func infosOf(list []codeInfo) map[stoa.Code]codeInfo {
	m := make(map[stoa.Code]codeInfo, len(list))
	for _, c := range list {
		m[c.code] = c
	}
	return m
}

// plainRemedy returns the remedy without the marks of Markdown.
func (c codeInfo) plainRemedy() string { return strings.ReplaceAll(c.remedy, "`", "") }
