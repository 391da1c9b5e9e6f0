package keyring_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/keyring"
)

const owner = "018f2b6c-7d1e-7c3a-9f00-000000000001"

// ring parses the given keys, the first of which is the current one.
func ring(t *testing.T, keys ...keyring.Secret) *keyring.Ring {
	t.Helper()
	specs := make([]string, len(keys))
	for i, k := range keys {
		specs[i] = k.Reveal()
	}
	r, err := keyring.Parse(keyring.NewSecret(strings.Join(specs, ",")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func seal(t *testing.T, r *keyring.Ring, plaintext string) string {
	t.Helper()
	envelope, err := r.Seal([]byte(plaintext), owner)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	r := ring(t, keyring.Generate("k1"))
	for _, plaintext := range []string{"", "s3cret", "παρά\x00binary\xff", strings.Repeat("long", 10_000)} {
		envelope := seal(t, r, plaintext)
		if plaintext != "" && strings.Contains(envelope, plaintext) {
			t.Errorf("the envelope of %.10q shows it", plaintext)
		}
		got, err := r.Open(envelope, owner)
		if err != nil || string(got) != plaintext {
			t.Errorf("Open(Seal(%.10q)) = %.10q, %v", plaintext, got, err)
		}
		if again := seal(t, r, plaintext); again == envelope {
			t.Errorf("two seals of %.10q are equal: the nonce repeats", plaintext)
		}
	}
}

// TestOpenRefusesAnotherOwner checks that a value copied to another store does not decrypt.
func TestOpenRefusesAnotherOwner(t *testing.T) {
	t.Parallel()
	r := ring(t, keyring.Generate("k1"))
	envelope := seal(t, r, "s3cret")
	for _, other := range []string{"", owner[:len(owner)-1] + "2", owner + " ", strings.ToUpper(owner)} {
		if got, err := r.Open(envelope, other); !errors.Is(err, keyring.ErrTampered) || got != nil {
			t.Errorf("Open for owner %q = %q, %v, want ErrTampered", other, got, err)
		}
	}
}

func TestOpenRefusesEveryChange(t *testing.T) {
	t.Parallel()
	r := ring(t, keyring.Generate("k1"))
	// The three lengths make base64 end with every possible number of unused bits.
	for _, plaintext := range []string{"s3cret", "s3cret!", "s3cret!!"} {
		envelope := seal(t, r, plaintext)
		for i := range len(envelope) {
			for bit := range 8 {
				changed := []byte(envelope)
				changed[i] ^= 1 << bit
				refuses(t, r, string(changed))
			}
			refuses(t, r, envelope[:i])
			refuses(t, r, envelope[:i]+"\n"+envelope[i:])
		}
		refuses(t, r, envelope+"A")
		refuses(t, r, envelope+"=")
		refuses(t, r, envelope+".")
	}
}

func refuses(t *testing.T, r *keyring.Ring, envelope string) {
	t.Helper()
	got, err := r.Open(envelope, owner)
	if got != nil || !errors.Is(err, keyring.ErrTampered) && !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("Open(%q) = %q, %v, want ErrTampered or ErrUnknownKey", envelope, got, err)
	}
}

// TestOpenBindsTheKeyID checks that two ids with one key do not make their envelopes
// interchangeable.
func TestOpenBindsTheKeyID(t *testing.T) {
	t.Parallel()
	_, encoded, _ := strings.Cut(keyring.Generate("a").Reveal(), ":")
	r := ring(t, keyring.NewSecret("a:"+encoded), keyring.NewSecret("b:"+encoded))
	envelope := strings.Replace(seal(t, r, "s3cret"), "v1.a.", "v1.b.", 1)
	if _, err := r.Open(envelope, owner); !errors.Is(err, keyring.ErrTampered) {
		t.Errorf("Open under another key id = %v, want ErrTampered", err)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	oldKey, newKey := keyring.Generate("2025"), keyring.Generate("2026")
	before, during, after := ring(t, oldKey), ring(t, newKey, oldKey), ring(t, newKey)

	old := seal(t, before, "s3cret")
	if got, err := during.Open(old, owner); err != nil || string(got) != "s3cret" {
		t.Errorf("the old key no longer decrypts: %q, %v", got, err)
	}
	fresh := seal(t, during, "s3cret")
	if !strings.HasPrefix(fresh, "v1.2026.") {
		t.Errorf("a fresh envelope is %.10s…, want the new key", fresh)
	}
	if got, err := after.Open(fresh, owner); err != nil || string(got) != "s3cret" {
		t.Errorf("the new key alone does not decrypt: %q, %v", got, err)
	}
	if _, err := after.Open(old, owner); !errors.Is(err, keyring.ErrUnknownKey) {
		t.Errorf("Open without the old key = %v, want ErrUnknownKey", err)
	}

	id, current := during.Current()
	if found, err := during.Key("2026"); err != nil || id != "2026" || !slices.Equal(found, current) {
		t.Errorf("Current is %q, and Key(%[1]q) differs or fails: %v", id, err)
	}
	if key, err := during.Key("2024"); !errors.Is(err, keyring.ErrUnknownKey) || key != nil {
		t.Errorf("Key of an unknown id = %v, want ErrUnknownKey", err)
	}
}

// TestOpenRefusesAnotherKeyWithTheSameID checks that a key replaced in place causes an
// error and not a wrong plaintext.
func TestOpenRefusesAnotherKeyWithTheSameID(t *testing.T) {
	t.Parallel()
	envelope := seal(t, ring(t, keyring.Generate("k1")), "s3cret")
	if _, err := ring(t, keyring.Generate("k1")).Open(envelope, owner); !errors.Is(err, keyring.ErrTampered) {
		t.Errorf("Open = %v, want ErrTampered", err)
	}
}

func TestParseAcceptsEveryBase64(t *testing.T) {
	t.Parallel()
	key := []byte(strings.Repeat("\xfb\xff\xfe0", keyring.KeySize/4)) // encodes to '+', '/', '-' and '_'
	for _, encoding := range []*base64.Encoding{
		base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding,
	} {
		text := encoding.EncodeToString(key)
		for spec, wantID := range map[string]string{text: "1", "k-1_A:" + text: "k-1_A", " ,k2:" + text + " ,": "k2"} {
			r, err := keyring.Parse(keyring.NewSecret(spec))
			if err != nil {
				t.Errorf("Parse(%q): %v", spec, err)
				continue
			}
			id, got := r.Current()
			if diff := cmp.Diff(key, got); diff != "" || id != wantID {
				t.Errorf("Parse(%q) has id %q, want %q; key (-want +got):\n%s", spec, id, wantID, diff)
			}
		}
	}
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	good := strings.TrimPrefix(keyring.Generate("x").Reveal(), "x:")
	short := base64.StdEncoding.EncodeToString([]byte(good[:keyring.KeySize-1]))
	long := base64.StdEncoding.EncodeToString([]byte(good[:keyring.KeySize+1]))
	for _, c := range []struct{ name, spec, wantInMessage string }{
		{"empty", "", "no key"},
		{"only separators", " , ,", "no key"},
		{"not base64", "k1:" + good[:20] + "!" + good[21:], "base64"},
		{"cut off", "k1:" + good[:41], "base64"},
		{"too short", "k1:" + short, "31 bytes"},
		{"too long", "k1:" + long, "33 bytes"},
		{"no id", ":" + good, "key id"},
		{"bad id", "a.b:" + good, "key id"},
		{"id too long", strings.Repeat("x", 33) + ":" + good, "key id"},
		{"id and key swapped", good + ":k1", "key id"},
		{"id twice", "k1:" + good + ",k1:" + good, "twice"},
		{"two without id", good + "," + good, "twice"},
		{"a good one and a bad one", "k1:" + good + ",k2:" + short, `"k2"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, err := keyring.Parse(keyring.NewSecret(c.spec))
			if err == nil || r != nil {
				t.Fatalf("Parse = %v, %v, want an error", r, err)
			}
			if !strings.Contains(err.Error(), c.wantInMessage) {
				t.Errorf("the message %q does not say %q", err, c.wantInMessage)
			}
			for _, key := range []string{good, short, long} {
				if strings.Contains(err.Error(), key[:12]) || strings.Contains(err.Error(), key[21:33]) {
					t.Errorf("the message %q shows the key", err)
				}
			}
		})
	}
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	a, b := keyring.Generate("k1"), keyring.Generate("k1")
	if a.Reveal() == b.Reveal() {
		t.Error("two generated keys are equal")
	}
	if id, key := ring(t, a).Current(); id != "k1" || len(key) != keyring.KeySize {
		t.Errorf("a generated key has id %q and %d bytes", id, len(key))
	}
}
