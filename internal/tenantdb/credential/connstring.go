package credential

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// Pasted is the content of an owner's connection string.
type Pasted struct {
	Credentials Credentials
	// Ignored lists the settings in the string that only concern the client,
	// such as "connection_limit". They have no effect here.
	Ignored []string
}

// maxConnectionString limits the length of a connection string, in bytes.
const maxConnectionString = 8 << 10

// pastedField is the field of the request that faults are reported for.
const pastedField = "connectionString"

// ParseConnectionString parses a string that an owner copies from a provider's
// page: a URL, a JDBC, keyword or ADO string, or the command line of psql or
// mysql, with or without quotes or a variable's name around it. It rejects, by
// name, settings that would let a driver read files or reach other hosts. It
// makes no connection. Its error never contains the string, because the string
// contains the password.
func ParseConnectionString(engine EngineName, raw keyring.Secret) (Credentials, error) {
	pasted, err := ParsePasted(engine, raw, "", SupabaseRules{})
	return pasted.Credentials, err
}

// ParsePasted does the same as ParseConnectionString for credentials that come
// with the certificates ca, or none. It uses the given rules for Supabase's
// hosts.
func ParsePasted(engine EngineName, raw keyring.Secret, ca string, rules SupabaseRules) (Pasted, error) {
	r := &pasteReader{engine: engine, hasCA: ca != ""}
	r.read(raw.Reveal())
	if err := r.faults.Err(); err != nil {
		return Pasted{}, err
	}
	c := r.credentials()
	c.CACertificate = ca
	r.checkPlaceholders()
	if err := r.faults.Err(); err != nil {
		return Pasted{}, err
	}
	if err := prefixFields(c.ValidateUnder(rules), pastedField); err != nil {
		return Pasted{}, err
	}
	slices.Sort(r.ignored)
	return Pasted{c, slices.Compact(r.ignored)}, nil
}

// prefixFields makes faults refer to the connection string that they came from.
// It excludes the certificate, which is a separate field.
func prefixFields(err error, field string) error {
	var e *stoa.Error
	if !errors.As(err, &e) {
		return err
	}
	var faults stoa.Invalid
	for _, f := range e.Fields {
		if f.Field == CAField {
			faults = append(faults, f)
			continue
		}
		faults.Add(field, "%s %s", f.Field, f.Message)
	}
	return faults.Err()
}

// pasteReader collects the settings in a connection string.
type pasteReader struct {
	engine EngineName // the type that was chosen; PostgreSQL for Supabase
	hasCA  bool       // a certificate is given in addition to the string
	faults stoa.Invalid

	host, port, user, password, database string
	schema, endpoint                     string
	pooled                               bool
	tls                                  []tlsDemand
	ignored                              []string

	// passwordRead is set once a setting has contained the password. After
	// that, a text that looks like the name of a later setting may be the rest
	// of the password, so it is not shown.
	passwordRead bool
}

func (r *pasteReader) fault(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if !slices.ContainsFunc(r.faults, func(f stoa.FieldError) bool { return f.Message == message }) {
		r.faults.Add(pastedField, "%s", message)
	}
}

// sql returns the engine of the type that was chosen.
func (r *pasteReader) sql() EngineName {
	if r.engine == Supabase {
		return PostgreSQL
	}
	return r.engine
}

// read recognises the form of text and parses it.
func (r *pasteReader) read(text string) {
	switch {
	case r.sql().facts().port == 0:
		r.faults.Add("type", "takes no connection string")
		return
	case len(text) > maxConnectionString:
		r.fault("is longer than %d bytes; give the connection string alone", maxConnectionString)
		return
	case !utf8.ValidString(text):
		r.fault("is not text in UTF-8; copy the connection string again")
		return
	}
	text, several := unwrap(text)
	if several {
		r.fault("holds several lines or connection strings; give one connection string alone")
		return
	}
	r.readForm(text)
}

func (r *pasteReader) readForm(text string) {
	scheme := schemePattern.FindString(text)
	switch {
	case len(text) > 5 && strings.EqualFold(text[:5], "jdbc:"):
		r.readJDBC(text[5:])
	case scheme != "":
		r.readURL(scheme[:len(scheme)-3], text[len(scheme):])
	case commandPattern.MatchString(text):
		r.readCommand(text)
	case goDSNPattern.MatchString(text):
		r.readGoDSN(text)
	case isADO(text):
		r.readADO(text)
	case strings.Contains(text, "="):
		r.readKeywords(text)
	default:
		r.notRecognised()
	}
}

func (r *pasteReader) notRecognised() {
	r.fault("must begin with %s", r.sql().facts().prefixes)
}

// mustEncode adds the fault of a URL whose parts cannot be distinguished.
func (r *pasteReader) mustEncode() {
	r.fault("must have the form %s://user:password@host:port/database; write special characters in the password percent-encoded: "+
		"%%40 for @, %%3A for :, %%2F for /, %%3F for ?, %%23 for #, %%25 for %%", r.sql().facts().scheme())
}

// checkScheme reports whether the scheme matches the type that was chosen.
func (r *pasteReader) checkScheme(scheme string) bool {
	engine := EngineOfScheme(scheme)
	switch {
	case engine == r.sql():
		return true
	case engine != "":
		r.fault("is of %s, and the type %q was chosen; choose the type %q for it, or paste a string that begins with %s",
			engine.Products(), string(r.engine), string(engine), r.sql().facts().prefixes)
	case strings.EqualFold(scheme, "https"), strings.EqualFold(scheme, "http"):
		r.fault("is the address of a web page or an API; the connection string of the database must begin with %s", r.sql().facts().prefixes)
	default:
		r.notRecognised()
	}
	return false
}

// credentials returns the credentials that were read.
func (r *pasteReader) credentials() Credentials {
	c := Credentials{
		Kind: Kind(r.engine), Engine: r.sql(), Host: r.host, Database: r.database, User: r.user, Password: keyring.NewSecret(r.password),
		Schema: r.schema, Endpoint: r.endpoint, TLS: r.tlsMode(),
	}
	if r.pooled {
		c.Pooler = TransactionPooler
	}
	if r.port != "" {
		port, err := strconv.Atoi(r.port)
		if err != nil || port < 1 || port > 65535 {
			r.fault("has a port that is not between 1 and 65535")
		}
		c.Port = port
	}
	return c
}
