package keyring_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
)

const password = "hunter2-never-print-this"

// holder has a Secret in every place that fmt treats differently: fmt calls no method on a
// value in an unexported field.
type holder struct {
	Exported keyring.Secret
	Pointer  *keyring.Secret
	Map      map[string]keyring.Secret
	Slice    []keyring.Secret
	Any      any
	hidden   keyring.Secret
	deep     struct{ list []keyring.Secret }
}

func newHolder() holder {
	s := keyring.NewSecret(password)
	h := holder{
		Exported: s, Pointer: &s, Map: map[string]keyring.Secret{"k": s}, Slice: []keyring.Secret{s}, Any: s, hidden: s,
	}
	h.deep.list = []keyring.Secret{h.hidden}
	return h
}

// secretError is an error type that holds a Secret, as driver errors hold their
// configuration.
type secretError struct{ cfg holder }

func (e *secretError) Error() string { return fmt.Sprintf("cannot connect with %+v", e.cfg) }

func values() map[string]any {
	s, h := keyring.NewSecret(password), newHolder()
	return map[string]any{
		"secret": s, "pointer": &s, "slice": []keyring.Secret{s}, "array": [1]keyring.Secret{s},
		"map value": map[string]keyring.Secret{"k": s}, "map key": map[keyring.Secret]int{s: 1},
		"struct": h, "struct pointer": &h, "error": fmt.Errorf("outer: %w", &secretError{h}),
		"joined": errors.Join(&secretError{h}, fmt.Errorf("%v", s)),
	}
}

// leaks reports whether text contains the password, in plain text or as %x and %q write it.
func leaks(text string) bool {
	lower := strings.ToLower(text)
	for _, form := range []string{
		password, hex.EncodeToString([]byte(password)), fmt.Sprintf("% x", password),
		strings.Trim(fmt.Sprintf("%d", []byte(password)), "[]"),
	} {
		if strings.Contains(lower, form) {
			return true
		}
	}
	return false
}

// TestLeaksNotices checks leaks itself: if it detected nothing, every other test would
// pass.
func TestLeaksNotices(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"%v", "%#v", "%s", "%x", "%X", "% x", "%q", "%d"} {
		value := any(struct{ Password string }{password})
		if format == "%d" {
			value = []byte(password)
		}
		if text := fmt.Sprintf(format, value); !leaks(text) {
			t.Errorf("%s = %s is not noticed", format, text)
		}
	}
}

func TestSecretIsNeverFormatted(t *testing.T) {
	t.Parallel()
	verbs := []string{"%v", "%+v", "%#v", "%s", "%+s", "%x", "%X", "% x", "%#x", "%q", "%#q", "%d", "%+d", "%t", "%p", "%c",
		"%U", "%b", "%o", "%e", "%g", "%100v", "%-100s", "%.3s",
		"%z", "%!", "%*d", "no verb"} // invalid verbs must not leak either
	for name, value := range values() {
		for _, verb := range verbs {
			if text := fmt.Sprintf(verb, value); leaks(text) {
				t.Errorf("%s with %s shows the secret: %s", name, verb, text)
			}
		}
		for form, text := range map[string]string{
			"Sprint": fmt.Sprint(value), "Sprintln": fmt.Sprintln(value),
		} {
			if leaks(text) {
				t.Errorf("%s with %s shows the secret: %s", name, form, text)
			}
		}
	}
	s := keyring.NewSecret(password)
	for method, got := range map[string]string{
		"String": s.String(), "GoString": s.GoString(), "LogValue": s.LogValue().String(),
	} {
		if got != "[redacted]" {
			t.Errorf("%s = %q, want [redacted]", method, got)
		}
	}
	for _, verb := range verbs[:12] {
		if got := fmt.Sprintf(verb, s); got != "[redacted]" {
			t.Errorf("%s = %q, want [redacted]", verb, got)
		}
	}
}

func TestSecretIsNeverLogged(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	for kind, logger := range map[string]*slog.Logger{
		"text": slog.New(slog.NewTextHandler(&buf, options)),
		"json": slog.New(slog.NewJSONHandler(&buf, options)),
	} {
		for name, value := range values() {
			buf.Reset()
			logger.Info("x", "value", value)
			logger.With("value", value).WithGroup("g").Info("x", slog.Any("value", value), slog.Group("h", "value", value))
			if buf.Len() == 0 || leaks(buf.String()) {
				t.Errorf("slog's %s handler shows the secret in %s: %s", kind, name, buf.String())
			}
		}
		buf.Reset()
		logger.Info("x", "value", keyring.NewSecret(password))
		if !strings.Contains(buf.String(), "[redacted]") {
			t.Errorf("slog's %s handler writes %q, want [redacted]", kind, buf.String())
		}
	}
	buf.Reset()
	for _, value := range values() {
		log.New(&buf, "", 0).Println(value)
	}
	if buf.Len() == 0 || leaks(buf.String()) {
		t.Errorf("log shows the secret: %s", buf.String())
	}
}

func TestSecretIsNeverMarshalled(t *testing.T) {
	t.Parallel()
	for name, value := range values() {
		if strings.Contains(name, "error") || name == "joined" {
			continue // errors marshal as {}
		}
		text, err := json.Marshal(value)
		if err != nil || leaks(string(text)) || !strings.Contains(string(text), "[redacted]") {
			t.Errorf("JSON of %s = %s, %v, want [redacted]", name, text, err)
		}
	}
	text, err := xml.Marshal(keyring.NewSecret(password))
	if err != nil || leaks(string(text)) || !strings.Contains(string(text), "[redacted]") {
		t.Errorf("XML = %s, %v, want [redacted]", text, err)
	}
}

func TestSecretCarriesItsValue(t *testing.T) {
	t.Parallel()
	var decoded struct{ S, Absent, Null keyring.Secret }
	if err := json.Unmarshal([]byte(`{"S": "p\u00e4ss", "Null": null}`), &decoded); err != nil {
		t.Fatal(err)
	}
	if got := decoded.S.Reveal(); got != "päss" {
		t.Errorf("decoded %q from JSON", got)
	}
	if !decoded.Absent.IsZero() || !decoded.Null.IsZero() || decoded.S.IsZero() {
		t.Errorf("IsZero is wrong for an absent, a null or a given secret")
	}
	if s := keyring.NewSecret(""); !s.IsZero() || s.Reveal() != "" || decoded.Absent.Reveal() != "" {
		t.Error("an empty secret is not empty")
	}

	var s keyring.Secret
	if err := s.UnmarshalText([]byte(password)); err != nil || s.Reveal() != password {
		t.Errorf("UnmarshalText: %q, %v", s.Reveal(), err)
	}
	if s != keyring.NewSecret(password) || s == keyring.NewSecret("other") {
		t.Error("secrets are not equal by value")
	}
	err := json.Unmarshal([]byte(`["`+password+`"]`), &s)
	if err == nil || leaks(err.Error()) {
		t.Errorf("UnmarshalJSON of a list = %v, want an error without the value", err)
	}
}
