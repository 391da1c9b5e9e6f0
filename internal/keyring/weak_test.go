package keyring_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
)

func TestWeak(t *testing.T) {
	t.Parallel()
	counting := make([]byte, keyring.KeySize)
	for i := range counting {
		counting[i] = byte(i + 200) // overflows a byte
	}
	for name, key := range map[string][]byte{
		"zeros":     make([]byte, keyring.KeySize),
		"one byte":  bytes.Repeat([]byte{0xa7}, keyring.KeySize),
		"few bytes": bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, keyring.KeySize/4),
		"half":      bytes.Repeat([]byte{1, 250, 3, 77, 5, 200, 7, 9, 91, 0, 33, 12, 180, 14, 15, 15}, 2),
		"counting":  counting,
		"a text":    []byte("correct horse battery staple 123"),
		"hex":       []byte("00112233445566778899aabbccddeeff"),
	} {
		spec := keyring.Generate("good").Reveal() + ",bad:" + base64.StdEncoding.EncodeToString(key)
		r, err := keyring.Parse(keyring.NewSecret(spec))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := r.Weak(); err == nil || !strings.Contains(err.Error(), `key "bad"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 10_000 {
		if err := ring(t, keyring.Generate("k")).Weak(); err != nil {
			t.Fatalf("a random key: %v", err)
		}
	}
}
