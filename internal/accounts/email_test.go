package accounts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestCanonicalEmail lists spellings with the form in which they are stored and
// compared.
func TestCanonicalEmail(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"owner@example.com":                              "owner@example.com",
		"Owner+Shop@Example.CO.UK":                       "owner+shop@example.co.uk",
		"o'brien_1%x@sub.example.com":                    "o'brien_1%x@sub.example.com",
		"o.w.ner@example.com":                            "o.w.ner@example.com",
		"Änne@Müller.example":                            "änne@xn--mller-kva.example",
		"a\u0308nne@mu\u0308ller.example":                "änne@xn--mller-kva.example",
		"owner@XN--MLLER-KVA.example":                    "owner@xn--mller-kva.example",
		"owner@faß.example":                              "owner@xn--fa-hia.example",
		"owner@ｅｘａｍｐｌｅ.com":                              "owner@example.com",
		"owner@example。com":                              "owner@example.com",
		"Nguyễn.Văn@example.vn":                          "nguyễn.văn@example.vn",
		"søren@example.dk":                               "søren@example.dk",
		"ИВАН.петров7@example.com":                       "иван.петров7@example.com",
		"Γιάννη@example.gr":                              "γιάννη@example.gr",
		"用户@example.com":                                 "用户@example.com",
		"ゆうこスター@example.jp":                              "ゆうこスター@example.jp",
		"संपर्क@example.in":                              "संपर्क@example.in",
		strings.Repeat("a", 64) + "@example.com":         strings.Repeat("a", 64) + "@example.com",
		"o@" + strings.Repeat("long-label.", 22) + "com": "o@" + strings.Repeat("long-label.", 22) + "com",
	} {
		if got, fault := canonicalEmail(in); got != want || fault != "" {
			t.Errorf("%q becomes %q (%s), want %q", in, got, fault, want)
		}
		if again, fault := canonicalEmail(want); again != want || fault != "" {
			t.Errorf("%q is not stable: %q (%s)", want, again, fault)
		}
	}
}

// confusable are local parts that a person or another program may confuse with another
// one.
var confusable = map[string]string{
	"long s": "\u017fam", "Kelvin sign": "\u212aim", "dotted capital I": "\u0130an", "dotted capital I of two": "I\u0307än", "dotless i": "\u0131an",
	"sharp s": "gro\u00df", "capital sharp s": "GRO\u1e9e", "apostrophe n": "\u0149a", "j with caron": "\u01f0a",
	"full-width letters": "ｓａｍ", "full-width digit": "sam１", "ligature": "ﬁnn", "superscript": "sam²", "bold": "𝐬am", "small capitals": "ꜱam",
	"final sigma": "άνθρωπος", "circled letter": "ⓢam", "Roman numeral": "ⅷ", "half-width kana": "ｶﾅ",
	"Cyrillic and Latin": "s\u0430m", "Greek and Latin": "s\u03b1m", "Cherokee": "\u13daam", "all Cyrillic, all Latin in looks": "\u0441\u043e\u0440\u0430",
	"all Greek, all Latin in looks": "\u03bd\u03bf\u03c1", "Latin alpha": "s\u0251m", "Latin script g": "ji\u0261", "click": "sam\u01c3",
	"mark on a letter": "sa\u0336m", "mark on nothing": "\u0301sam", "mark on a digit": "sam1\u0301", "enclosing mark": "s\u20ddam", "many marks": "a\u0300\u0301\u0302",
	"Arabic digit": "علی٣", "emoji": "😀", "middle dot": "sa·m", "modifier apostrophe": "o\u02bcbrien", "joiner": "sa\u200dm", "variation selector": "sa\ufe0fm",
}

func TestConfusableEmails(t *testing.T) {
	t.Parallel()
	for name, local := range confusable {
		if got, fault := canonicalEmail(local + "@example.com"); fault == "" {
			t.Errorf("%s: %q is accepted as %q", name, local, got)
		}
	}
}

func TestMalformedEmails(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long-label.", 30)
	for name, in := range map[string]string{
		"empty": "", "no at": "owner", "no name": "@example.com", "no domain": "owner@", "full-width at": "owner＠example.com",
		"no dot": "owner@localhost", "two ats": "a@b@example.com",
		"display name": "Olive <owner@example.com>", "brackets": "<owner@example.com>",
		"comment": "owner@example.com (Olive)", "quoted": `"owner"@example.com`, "quoted space": `"o w"@example.com`,
		"list": "a@example.com, b@example.com", "leading space": " owner@example.com", "trailing space": "owner@example.com ",
		"inner space": "ow ner@example.com", "newline": "owner@example.com\r\nBcc: x@example.com",
		"nul": "owner\x00@example.com", "unicode control": "owner\u0085@example.com", "bidi override": "own\u202eer@example.com",
		"zero width": "own\u200ber@example.com", "soft hyphen": "owner@exam\u00adple.com", "invalid utf-8": "own\xff@example.com",
		"double dot": "o..wner@example.com", "leading dot": ".owner@example.com", "empty label": "owner@example..com",
		"trailing dot": "owner@example.com.", "dot before the at": "owner.@example.com",
		"address literal": "owner@[192.0.2.1]", "underscore host": "owner@exa_mple.com", "hyphen host": "owner@-example.com",
		"no punycode": "owner@xn--a.com", "punycode of ASCII": "owner@xn--example-.com", "punycode of a capital": "owner@xn--Mller-qya.example",
		"long label": "owner@" + strings.Repeat("a", 64) + ".com", "long name": strings.Repeat("a", 65) + "@example.com",
		"long name in bytes": strings.Repeat("ж", 33) + "@example.com", "long": "owner@" + long + "com",
	} {
		if got, fault := canonicalEmail(in); fault == "" {
			t.Errorf("%s: %q is accepted as %q", name, in, got)
		}
	}
}

// TestEmailSpellingsAreOneAccount checks that registering, signing in, resetting,
// inviting, accepting and promoting find the same account with any spelling.
func TestEmailSpellingsAreOneAccount(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		spellings := []string{"Zoë@Bücher.Example", "zoe\u0308@xn--bcher-kva.example", "ZOË@ｂüｃｈｅｒ.example"}
		guest := b.person(spellings[0])
		for _, s := range spellings[1:] {
			r := registration()
			r.Email = s
			_, _, err := b.Register(b.Context(), r)
			wantCode(b.T, err, stoa.EmailTaken)
			if session, err := b.Login(b.Context(), s, keyring.NewSecret(goodPassword), Client{}); err != nil || session.User.ID != guest.UserID {
				b.Errorf("sign in as %q: %v", s, err)
			}
			if user, err := SetPlatformRole(b.Context(), b.db, authz.Principal{}, s, "user"); err != nil || user.ID != guest.UserID {
				b.Errorf("find %q: %v", s, err)
			}
		}
		if _, err := b.Invite(b.Context(), b.owner, b.store, spellings[1], authz.Member); err != nil {
			b.Fatal(err)
		}
		_, err := b.Invite(b.Context(), b.owner, b.store, spellings[2], authz.Member)
		wantCode(b.T, err, stoa.RateLimited)
		token := tokensIn(b.T, sendAll(b.T, b.Accounts), invitation)[0]
		if _, err := b.AcceptInvitation(b.Context(), guest, token); err != nil {
			b.Error(err)
		}
	})
}

// TestConfusableAccountFromBefore checks that an account with an address that is no
// longer accepted signs in with that spelling only, and is not confused with another
// account.
func TestConfusableAccountFromBefore(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		old := map[string]authz.Principal{}
		for i, email := range []string{"\u017fam@example.com", "ｓａｍ@example.com", "s\u0430m@example.com"} {
			p := b.person(strings.Repeat("x", i+1) + "@example.com")
			exec(b.T, b.db, `UPDATE users SET email = $1 WHERE id = $2`, email, p.UserID)
			old[email] = p
		}
		sam := b.person("sam@example.com")
		if _, err := b.Invite(b.Context(), b.owner, b.store, "sam@example.com", authz.Member); err != nil {
			b.Fatal(err)
		}
		token := tokensIn(b.T, sendAll(b.T, b.Accounts), invitation)[0]
		for email, p := range old {
			_, err := b.AcceptInvitation(b.Context(), p, token)
			wantCode(b.T, err, stoa.Forbidden)
			if session, err := b.Login(b.Context(), email, keyring.NewSecret(goodPassword), Client{}); err != nil || session.User.ID != p.UserID {
				b.Errorf("%q signs in: %v", email, err)
			}
			r := registration()
			r.Email = email
			if _, _, err := b.Register(b.Context(), r); !cmp.Equal(faultyFields(err), []string{"email"}) {
				b.Errorf("%q is registered: %v", email, err)
			}
			if _, err := b.Invite(b.Context(), b.owner, b.store, email, authz.Member); !cmp.Equal(faultyFields(err), []string{"email"}) {
				b.Errorf("%q is invited: %v", email, err)
			}
		}
		if session, err := b.Login(b.Context(), "sam@example.com", keyring.NewSecret(goodPassword), Client{}); err != nil || session.User.ID != sam.UserID {
			b.Errorf("sam signs in: %v", err)
		}
		if _, err := b.AcceptInvitation(b.Context(), sam, token); err != nil {
			b.Error(err)
		}
		irregular, err := IrregularEmails(b.Context(), b.db)
		if err != nil || len(irregular) != len(old) {
			b.Errorf("%d of %d addresses are named: %v", len(irregular), len(old), err)
		}
	})
}

// FuzzCanonicalEmail checks that the canonical form is stable and lower case, and that
// for ASCII it differs from the input in case only.
func FuzzCanonicalEmail(f *testing.F) {
	for _, local := range confusable {
		f.Add(local + "@example.com")
	}
	for _, s := range []string{"Owner@Example.COM", "Änne@Müller.example", "用户@例え.jp", "a@xn--", "\"a\"@b.c", "a@b.c.", "संपर्क@example.in"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		email, fault := canonicalEmail(s)
		if fault != "" {
			return
		}
		if again, fault := canonicalEmail(email); again != email || fault != "" {
			t.Fatalf("%q becomes %q, and that %q (%s)", s, email, again, fault)
		}
		at, from := strings.LastIndexByte(email, '@'), strings.LastIndexByte(s, '@')
		if at < 1 || at > maxEmailName || len(email) > maxEmail || strings.ToLower(email) != email {
			t.Fatalf("%q becomes %q", s, email)
		}
		if isASCII(email[:at]) && !strings.EqualFold(email[:at], s[:from]) || isASCII(email[:at]) != isASCII(s[:from]) {
			t.Fatalf("%q becomes %q", s, email)
		}
	})
}

// TestRegisterTogetherInSpellings checks that of concurrent registrations with several
// spellings only one creates an account.
func TestRegisterTogetherInSpellings(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		spellings := []string{"Zoë@Bücher.Example", "zoe\u0308@xn--bcher-kva.example", "ZOË@bücher.example", "zoë@BÜCHER.EXAMPLE"}
		errs := concurrently(len(spellings), func(i int) error {
			r := registration()
			r.Email = spellings[i]
			_, _, err := a.Register(t.Context(), r)
			return err
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.EmailTaken: 3}, codes(errs)); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
	})
}
