package console

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/console/ui"
)

// refused returns the state of a form that the domain refused, to be shown again with
// what was typed and the faults beside their fields. An error that the form cannot
// correct is returned: a fault of the platform, the end of the session, a missing right.
func refused(r *Request, err error) (ui.Form, error) {
	var known *stoa.Error
	if !errors.As(err, &known) || !correctable(known.Code) {
		return ui.Form{}, err
	}
	f := ui.Form{Values: typed(r.PostForm), Faults: map[string]string{}, Code: http.StatusUnprocessableEntity}
	for _, fault := range known.Fields {
		if _, known := f.Faults[fault.Field]; !known {
			f.Faults[fault.Field] = sentence(fault.Message)
		}
	}
	// A fault of a field that this form does not have is shown above it.
	for field, message := range f.Faults {
		if _, sent := r.PostForm[field]; !sent {
			f.Fault = strings.TrimSpace(f.Fault + " " + sentence(field+": "+message))
		}
	}
	if len(known.Fields) == 0 {
		f.Fault = known.Message
	}
	if known.Code == stoa.RateLimited {
		f.Code = http.StatusTooManyRequests
	}
	return f, nil
}

// correctable reports whether whoever sent a form can correct the error in it.
func correctable(code stoa.Code) bool {
	switch code {
	case stoa.Internal, stoa.PlatformUnavailable, stoa.TokenInvalid, stoa.TokenExpired, stoa.SessionRevoked,
		stoa.Forbidden, stoa.StoreNotFound, stoa.NotFound, stoa.ReauthenticationRequired:
		return false
	default:
		return true
	}
}

// sentence makes a domain message the text beside a field.
func sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	return s
}

// typed returns what a form keeps: everything but secrets. The limit of the request's body
// bounds it.
func typed(values url.Values) url.Values {
	kept := url.Values{}
	for name, list := range values {
		if !isSecretField(name) {
			kept[name] = list
		}
	}
	return kept
}

// isSecretField reports whether a field holds a secret, which is never sent back.
func isSecretField(name string) bool {
	name = strings.ToLower(name)
	if name == "postalcode" {
		return false
	}
	for _, part := range []string{"password", "passphrase", "identity", "secret", "code", "token", "connection", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// nextPath returns the path on this host to go on to, or otherwise. Only a path is
// accepted: a full address would let a link lead people from the sign-in elsewhere.
func nextPath(next, otherwise string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") ||
		strings.ContainsAny(next, "\\\r\n\t") || len(next) > 2000 {
		return otherwise
	}
	return u.RequestURI()
}

// newFormKey returns a key that makes a form which is sent twice act once.
func newFormKey() string { return rand.Text() }
