package credential

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// normalName returns one name for the spellings that clients use: ssl-mode,
// sslMode, "Ssl Mode", ssl_mode.
func normalName(name string) string {
	return strings.NewReplacer(" ", "", "_", "", "-", "", ".", "").Replace(strings.ToLower(strings.TrimSpace(name)))
}

const passwordName = "password"

// byName returns a map with one entry for each name in the lists that are m's
// keys.
func byName[V any](m map[string]V) map[string]V {
	all := map[string]V{}
	for names, value := range m {
		for name := range strings.FieldsSeq(names) {
			all[name] = value
		}
	}
	return all
}

// fieldNames maps the settings that say where the database is and who connects.
var fieldNames = byName(map[string]string{
	"host server datasource hostname addr address networkaddress servername pghost dbhost mysqlhost postgreshost":    "host",
	"port portnumber pgport dbport mysqlport postgresport":                                                           "port",
	"user username userid uid pguser dbuser dbusername mysqluser postgresuser":                                       "user",
	"password pwd pass pgpassword mysqlpwd dbpassword mysqlpassword postgrespassword":                                passwordName,
	"database dbname db initialcatalog databasename pgdatabase dbdatabase mysqldatabase postgresdb postgresdatabase": "database",
})

// knownSettings maps every other setting to its handling.
var knownSettings = byName(map[string]func(r *pasteReader, name, value string){
	tlsSettings:    (*pasteReader).setTLS,
	rootSettings:   (*pasteReader).setRoots,
	schemaSettings: (*pasteReader).setSchema,
	clientSettings: (*pasteReader).ignore,
	keySettings:    (*pasteReader).refuseKey,
	serverSettings: (*pasteReader).refuse,
	"options":      (*pasteReader).setOptions,
	"pgbouncer":    (*pasteReader).setPgBouncer,
	"driver":       (*pasteReader).setDriver,
	"targetsessionattrs targetservertype pgtargetsessionattrs": (*pasteReader).setTarget,
	"protocol":                (*pasteReader).setProtocol,
	"socket unixsocket":       (*pasteReader).refuseSocket,
	"verifyservercertificate": (*pasteReader).setVerify,
})

const (
	tlsSettings    = "sslmode pgsslmode tls ssl usessl requiressl sslaccept"
	rootSettings   = "sslrootcert pgsslrootcert sslca sslcapath rootcertificate serversslcert cacert certificateauthorityfile trustcertificatekeystoreurl sslcacert"
	schemaSettings = "schema searchpath currentschema"

	// clientSettings lists settings that only concern the client, or that
	// request what Stoa always does. They have no effect here. The answer lists
	// them.
	clientSettings = `applicationname fallbackapplicationname connecttimeout connectiontimeout timeout commandtimeout sockettimeout readtimeout writetimeout
		logintimeout statementtimeout locktimeout idleintransactionsessiontimeout channelbinding gssencmode gsslib sslnegotiation sslsni sslcompression
		sslminprotocolversion sslmaxprotocolversion minprotocolversion maxprotocolversion tlsversion enabledtlsprotocols requireauth uselibpqcompat
		keepalives keepalivesidle keepalivesinterval keepalivescount keepalive tcpkeepalive tcpusertimeout
		connectionlimit poollimit pooltimeout poolsize maxpoolsize minpoolsize minimumpoolsize maximumpoolsize maxoverflow poolrecycle poolpreping
		poolmaxconns poolminconns poolmaxconnlifetime poolmaxconnidletime poolhealthcheckperiod maxconnections connectionlifetime pooling pool
		maxidleconnectionlifetime socketfactorytimeout maxlifetime idletimeout acquiretimeout queuelimit waitforconnections
		statementcachesize statementcachecapacity preparedstatementcachesize preparedstatementcachequeries descriptioncachecapacity
		defaultqueryexecmode preparethreshold preparedstatements prepstmtcachesize prepstmtcachesqllimit cacheprepstmts useserverprepstmts
		maxautoprepare noresetonclose binarytransfer binaryparameters prefersimpleprotocol rewritebatchedstatements rewritebatchedinserts
		clientencoding charset charactersetresults characterencoding useunicode encoding collation connectioncollation defaultcharacterset
		timezone servertimezone connectiontimezone loc parsetime uselegacydatetimecode usejdbccomplianttimezoneshift zerodatetimebehavior datestyle
		reconnect autoreconnect failoverreadonly tinyint1isbit serverversion dialect driverclassname sslcertmode supa workaround
		allowpublickeyretrieval getserverpublickey trustservercertificate includeerrordetail persistsecurityinfo wrapperplugins
		stringtype tcpnodelay logunclosedconnections loggerlevel assumeminserverversion defaultrowfetchsize createdatabaseifnotexist
		decimalnumbers supportbignumbers bignumberstrings datestrings nopassword compress usecompression connectionattributes logger`

	// keySettings lists settings that name files of a client certificate.
	keySettings = "sslcert sslkey sslpassword sslidentity pgsslcert pgsslkey sslcertificate sslclientcert clientcertificate clientcertificatekeystoreurl clientcertificatekeystorepassword sslcrl sslcrldir"

	// serverSettings lists settings that would make a driver read files, reach
	// other hosts, reveal the password or run more than one statement.
	// Source: the manuals of libpq, pgx, go-sql-driver/mysql and Connector/J.
	serverSettings = `service servicefile pgservice pgservicefile passfile pgpassfile hostaddr pghostaddr krbsrvname krbspn gssdelegation loadbalancehosts pgoptions
		allowallfiles allowloadlocalinfile allowurlinlocalinfile allowloadlocalinfileinpath localinfile allowcleartextpasswords enablecleartextplugin
		allowoldpasswords allowfallbacktoplaintext allownativepasswords allowmultiqueries multistatements interpolateparams
		maxallowedpacket net serverpubkey serverpublickeypath serverrsapublickeyfile socketfactory sslfactory sslhostnameverifier authenticationplugins
		defaultauthenticationplugin autodeserialize queryinterceptors statementinterceptors propertiestransform sessionvariables initsql initcommand
		connectioninitsql sqlmode defaultsfile defaultsextrafile logindpath loginpath plugindir dsn filedsn integratedsecurity`
)

// set processes one setting.
func (r *pasteReader) set(name, value string) {
	normal := normalName(name)
	if field := fieldNames[normal]; field != "" {
		r.setField(field, value)
		return
	}
	if treat := knownSettings[normal]; treat != nil {
		treat(r, safeName(name), value)
		return
	}
	shown := safeName(name)
	if r.passwordRead || shown == "" {
		r.fault("has a parameter that is not known; take it away, or, if it is a part of the password, put quotes around the password or write it percent-encoded")
		return
	}
	r.fault("parameter %q is not allowed: it is not known here; take it away", shown)
}

// settingName matches the form of a setting's name.
var settingName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9 _.-]{0,39}$`)

// safeName returns the name if it may be shown, or "" if it does not have the
// form of a name.
func safeName(name string) string {
	if name = strings.TrimSpace(name); settingName.MatchString(name) {
		return name
	}
	return ""
}

func (r *pasteReader) field(name string) *string {
	return map[string]*string{"host": &r.host, "port": &r.port, "user": &r.user, passwordName: &r.password, "database": &r.database}[name]
}

// setField sets host, port, user, password or database. It rejects a field that
// is given twice with different values, because clients differ in which value
// they use.
func (r *pasteReader) setField(name, value string) {
	field := r.field(name)
	if name == passwordName {
		r.passwordRead = true
	}
	if name == "host" {
		r.setHost(value)
		return
	}
	if *field != "" && *field != value {
		r.fault("parameter %q is not allowed beside the %s that the connection string has already", name, name)
		return
	}
	*field = value
}

func (r *pasteReader) setHost(value string) {
	if r.host != "" && value != r.host {
		r.fault("parameter %q is not allowed beside the host that the connection string has already", "host")
		return
	}
	port := r.port
	value = strings.TrimPrefix(value, "tcp:")
	if isAddress(value) && strings.Contains(value, ":") {
		r.host = value
		return
	}
	r.readAddress(value)
	if r.port == "" {
		r.port = port
	}
}

func (r *pasteReader) ignore(name, _ string) {
	if name != "" {
		r.ignored = append(r.ignored, name)
	}
}

func (r *pasteReader) refuse(name, _ string) {
	r.fault("parameter %q is not allowed: it would change what the platform itself may read, reach or run; take it away", name)
}

func (r *pasteReader) refuseKey(name, _ string) {
	r.fault("parameter %q is not allowed: files are never read here, and there are no client certificates; log in by password, and give a private authority's certificate as tls.caCertificate", name)
}

func (r *pasteReader) refuseSocket(name, _ string) {
	r.fault("parameter %q is not allowed: a unix socket is on the client's own machine; give the server's host name", name)
}

// setRoots handles the setting for trusted roots. "system" is the default. A
// file name is ignored if the certificate is given in addition to the string,
// and rejected otherwise.
func (r *pasteReader) setRoots(name, value string) {
	switch {
	case strings.EqualFold(value, "system"):
	case r.hasCA:
		r.ignore(name, value)
	default:
		r.fault("parameter %q is not allowed alone: files are never read here; give the certificate itself, in PEM, as tls.caCertificate beside the connection string", name)
	}
}

func (r *pasteReader) setSchema(name, value string) {
	value = strings.Trim(value, `"`)
	switch {
	case r.engine == Supabase:
		r.ignore(name, value) // the store gets its own schema there
	case r.sql() != PostgreSQL:
		r.fault("parameter %q is not allowed: a schema is PostgreSQL's; name the database", name)
	case strings.Contains(value, ","):
		r.fault("parameter %q must name one schema", name)
	case r.schema != "" && r.schema != value:
		r.fault("parameter %q names another schema than the one before", name)
	default:
		r.schema = value
	}
}

// setOptions accepts only the form that Neon's pages give to clients that do
// not name the host in TLS. All other values would change the server's
// behaviour.
// Source: Neon documentation, "Connection errors: endpoint ID".
func (r *pasteReader) setOptions(name, value string) {
	endpoint, ok := strings.CutPrefix(value, "endpoint=")
	if !ok || !endpointName.MatchString(endpoint) || r.sql() != PostgreSQL {
		r.fault("parameter %q is not allowed: only options=endpoint%%3D… of Neon is; take it away", name)
		return
	}
	r.endpoint = endpoint
}

// setPgBouncer handles Prisma's setting for a transaction pooler.
func (r *pasteReader) setPgBouncer(name, value string) {
	if r.sql() != PostgreSQL {
		r.ignore(name, value)
		return
	}
	r.pooled = r.pooled || isOn(value)
}

func isOn(value string) bool {
	return slices.Contains([]string{"true", "1", "yes", "on"}, strings.ToLower(value))
}

// setDriver checks that ODBC's driver name matches the engine.
func (r *pasteReader) setDriver(_, value string) {
	value = strings.ToLower(value)
	switch {
	case strings.Contains(value, "postgres"):
		r.checkScheme("postgresql")
	case strings.Contains(value, "mysql"), strings.Contains(value, "mariadb"):
		r.checkScheme("mysql")
	}
}

func (r *pasteReader) setTarget(name, value string) {
	if value = normalName(value); value != "any" && value != "readwrite" && value != "primary" && value != "preferprimary" && value != "master" {
		r.fault("parameter %q is not allowed with this value: a store needs the server that accepts writes", name)
		return
	}
	r.ignore(name, value)
}

func (r *pasteReader) setProtocol(name, value string) {
	if value = strings.ToLower(value); value != "tcp" && value != "tcpip" && value != "socket" { // ADO's "socket" is TCP
		r.fault("parameter %q is not allowed with this value: connections are made by TCP alone", name)
		return
	}
	r.ignore(name, value)
}

// tlsDemand is the level of protection that a setting requests for the
// connection.
type tlsDemand int

const (
	tlsOff  tlsDemand = iota
	tlsOn             // at the level that Stoa uses by default
	tlsCA             // a chain to the given authority is sufficient
	tlsFull           // the name is verified too
)

// tlsWords maps the values of clients' settings. Values that would encrypt
// without verification, or only if the server supports it, request less than
// Stoa always does. They are treated as the strict mode.
var tlsWords = map[string]tlsDemand{
	"disable": tlsOff, "disabled": tlsOff, "false": tlsOff, "none": tlsOff, "off": tlsOff, "0": tlsOff, "no": tlsOff,
	"allow": tlsOn, "prefer": tlsOn, "preferred": tlsOn, "require": tlsOn, "required": tlsOn, "true": tlsOn, "on": tlsOn, "1": tlsOn, "yes": tlsOn, "strict": tlsOn,
	"verifyca": tlsCA, "verifyfull": tlsFull, "verifyidentity": tlsFull, "trust": -1, "noverify": -1, "skipverify": -1, "acceptinvalidcerts": -1,
}

func (r *pasteReader) setTLS(name, value string) {
	demand, known := tlsWords[normalName(value)]
	switch {
	case strings.HasPrefix(strings.TrimSpace(value), "{"):
		r.setTLSObject(name, value)
	case known && demand < 0, normalName(name) == "tls" && normalName(value) == "preferred":
		r.refuseUnverified(name)
	case !known:
		r.fault("%s must be given once, as verify-full, verify-ca, require or disable", name)
	default:
		r.tls = append(r.tls, demand)
	}
}

func (r *pasteReader) refuseUnverified(name string) {
	r.fault("parameter %q asks that the server's certificate is not verified, which is always done; take it away, and give a private authority's certificate as tls.caCertificate", name)
}

// setTLSObject parses the options of Node's drivers, such as
// {"rejectUnauthorized":true}.
func (r *pasteReader) setTLSObject(name, value string) {
	var object map[string]any
	if json.Unmarshal([]byte(value), &object) != nil {
		r.fault("%s is a JSON object that cannot be read", name)
		return
	}
	for key, v := range object {
		switch {
		case key == "rejectUnauthorized" && v == true, key == "minVersion", key == "servername":
		case key == "rejectUnauthorized":
			r.refuseUnverified(name)
			return
		default:
			r.fault("%s may hold rejectUnauthorized alone; give a private authority's certificate as tls.caCertificate", name)
			return
		}
	}
	r.tls = append(r.tls, tlsOn)
}

func (r *pasteReader) setVerify(name, value string) {
	if !isOn(value) {
		r.refuseUnverified(name)
		return
	}
	r.tls = append(r.tls, tlsOn)
}

// tlsMode returns the strictest mode that the settings request. Plaintext
// together with another mode is a contradiction.
func (r *pasteReader) tlsMode() TLSMode {
	if len(r.tls) == 0 {
		return ""
	}
	least, most := slices.Min(r.tls), slices.Max(r.tls)
	switch {
	case least == tlsOff && most != tlsOff:
		r.fault("has settings for TLS that contradict each other; sslmode must be given once, as verify-full, verify-ca, require or disable")
	case most == tlsOff:
		return TLSDisable
	case most == tlsCA && r.hasCA:
		return TLSVerifyCA
	}
	return TLSVerify // verify-ca without an authority uses the system's, and then the name must be verified
}
