package passwordhash_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/passwordhash"
	"github.com/stoahq/stoa/internal/testkit"
)

const firebase = "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==" +
	"$42xEC+ixf3L2lw==$lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="

// TestMatches compares passwords with hashes that other programs made: the reference
// implementations of argon2, crypt(3), the standard library of Python with the formats of
// Django, Werkzeug and passlib, and the example of Firebase's documentation.
func TestMatches(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ hash, password string }{
		"argon2id":       {hash: "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", password: "password"},
		"argon2i":        {hash: "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA", password: "password"},
		"bcrypt 2a":      {hash: "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", password: "U*U"},
		"bcrypt 2b":      {hash: "$2b$06$abcdefghijklmnopqrstuuUYThwYmIWln5x39D.gxp.bQbpZrfEYG", password: "letmein"},
		"bcrypt 2y":      {hash: "$2y$06$abcdefghijklmnopqrstuuUYThwYmIWln5x39D.gxp.bQbpZrfEYG", password: "letmein"},
		"Django SHA-256": {hash: "pbkdf2_sha256$1000$seasalt$jbu7IkbRD5VtvV9ziNvcqNHxXuBd4+gsmw9KgWiw4GI=", password: "letméin"},
		"Django argon2":  {hash: "argon2$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", password: "password"},
		"Django bcrypt":  {hash: "bcrypt$$2b$06$abcdefghijklmnopqrstuuUYThwYmIWln5x39D.gxp.bQbpZrfEYG", password: "letmein"},
		// By crypt(3), of the digits of SHA-256.
		"Django bcrypt of SHA-256": {hash: "bcrypt_sha256$$2b$05$abcdefghijklmnopqrstuu7NWrN7LDe6TsL0Uvl02JAyoviNQsv8e", password: "letmein"},
		"two code points":          {hash: "pbkdf2_sha256$1000$seasalt$jbu7IkbRD5VtvV9ziNvcqNHxXuBd4+gsmw9KgWiw4GI=", password: "letme\u0301in"},
		"Django SHA-1":             {hash: "pbkdf2_sha1$1000$seasalt$FR1Hz/2XTwvhcvkmbwDDrzMsEnQ=", password: "letmein"},
		"Werkzeug":                 {hash: "pbkdf2:sha256:1000$seasalt$475fc67d6b70a20d53f04bfd5677600e3ce4891cdb16bf09a6626d2fd70c9905", password: "letmein"},
		"Werkzeug 512": {hash: "pbkdf2:sha512:1000$seasalt$c67637a4e31893343a9906b4e9ba8102032266f08c155ab332daa01c7cf9602723569c8d33ac2737ffa949619126e86fa018ded21ef0534edf5dd28109b61fb3",
			password: "letmein"},
		"passlib": {hash: "$pbkdf2-sha256$1000$c2FsdHlzYWx0IQ$Bbj1gAtB80Eh8kwV3mEjGZtQXHdhZOkX3Fty3CJRYyw", password: "letmein"},
		"Django scrypt": {hash: "scrypt$16384$seasalt$8$1$aw3bUxWFC3Xfheg2aovvLtnT0Y/ygxtIQOGecmEip41obMVVDU79jbPvHz9Arhl5DJSOPtnhOicOs9M/j7Q8oQ==",
			password: "letmein"},
		"Werkzeug scrypt": {hash: "scrypt:32768:8:1$seasalt$1a67243d1e1633e3e8c5e20ca180a7812d468c4ae606986f2e8a46f825bf6316b32befce518d908fc2508f1c45ab16360ed5e7a566bbad45adf96d90e5fc7c4c",
			password: "letmein"},
		"PHC scrypt": {hash: "$scrypt$ln=14,r=8,p=1$c2Vhc2FsdCE$uOv+tu2qJNQ6QCK6aZxeYswjv1D6NSUmagRXuouIZEM", password: "letmein"},
		"Firebase":   {hash: firebase, password: "user1password"},
		"Firebase, URL alphabet": {hash: strings.NewReplacer("+", "-", "sZS2W9c9Kp6i/LV", "sZS2W9c9Kp6i_LV").Replace(firebase),
			password: "user1password"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, err := passwordhash.Parse(test.hash)
			testkit.Must(t, err)
			if !passwordhash.Matches(h, test.password) {
				t.Error("the password does not match")
			}
			for _, other := range []string{"", test.password + "x", strings.ToUpper(test.password) + "x", test.password[1:]} {
				if passwordhash.Matches(h, other) {
					t.Errorf("%q matches", other)
				}
			}
		})
	}
}

// TestLongPasswords checks that bcrypt reads the first 72 bytes, as other systems do.
func TestLongPasswords(t *testing.T) {
	t.Parallel()
	h, err := passwordhash.Parse("$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui")
	testkit.Must(t, err)
	const password = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	for _, typed := range []string{password, password + "chars after 72 are ignored"} {
		if !passwordhash.Matches(h, typed) {
			t.Errorf("%d bytes do not match", len(typed))
		}
	}
	if passwordhash.Matches(h, password[:71]) {
		t.Error("71 bytes match")
	}
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	const argon2Tail = "$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	const key = "jbu7IkbRD5VtvV9ziNvcqNHxXuBd4+gsmw9KgWiw4GI="
	faults := map[string]error{
		"": passwordhash.ErrFormat, "plain text": passwordhash.ErrFormat, "5f4dcc3b5aa765d61d8327deb882cf99": passwordhash.ErrFormat, "!": passwordhash.ErrFormat,
		"$1$saltsalt$qjXMvbEw8oaL.CzflDugD/": passwordhash.ErrFormat, "$6$x$y": passwordhash.ErrFormat,
		strings.Repeat("$argon2id", 1000):                                            passwordhash.ErrFormat,
		"$argon2d$v=19$m=256,t=2,p=1" + argon2Tail:                                   passwordhash.ErrFormat,
		"$argon2id$v=16$m=256,t=2,p=1" + argon2Tail:                                  passwordhash.ErrFormat,
		"$argon2id$m=256,t=2,p=1" + argon2Tail:                                       passwordhash.ErrFormat,
		"x$argon2id$v=19$m=256,t=2,p=1" + argon2Tail:                                 passwordhash.ErrFormat,
		"$argon2id$v=19$t=2,m=256,p=1" + argon2Tail:                                  passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=2,p=1,x=1" + argon2Tail:                              passwordhash.ErrFormat,
		"$argon2id$v=19$m=+256,t=2,p=1" + argon2Tail:                                 passwordhash.ErrFormat,
		"$argon2id$v=19$m=1048576,t=2,p=1" + argon2Tail:                              passwordhash.ErrCost,
		"$argon2id$v=19$m=99999999999,t=2,p=1" + argon2Tail:                          passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=1000,p=1" + argon2Tail:                               passwordhash.ErrCost,
		"$argon2id$v=19$m=256,t=0,p=1" + argon2Tail:                                  passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=2,p=0" + argon2Tail:                                  passwordhash.ErrFormat,
		"$argon2id$v=19$m=4096,t=2,p=255" + argon2Tail:                               passwordhash.ErrCost,
		"$argon2id$v=19$m=7,t=2,p=1" + argon2Tail:                                    passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=2,p=1$$nf65EOgLrQMR/uIPnA4rEsF5h7TK":                 passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$":                                  passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EA":                            passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR*uIPn":                 passwordhash.ErrFormat,
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$" + strings.Repeat("AAAA", 100):    passwordhash.ErrFormat,
		"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW":               passwordhash.ErrFormat,
		"$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW":               passwordhash.ErrCost,
		"$2a$99$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW":               passwordhash.ErrFormat,
		"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe":                passwordhash.ErrFormat,
		"pbkdf2_sha256$100000000$salt$" + key:                                        passwordhash.ErrCost,
		"pbkdf2_sha256$9999999999$salt$" + key:                                       passwordhash.ErrFormat,
		"argon2$$argon2id$v=19$m=256,t=2,p=1" + argon2Tail:                           passwordhash.ErrFormat,
		"bcrypt$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW":         passwordhash.ErrFormat,
		"bcrypt_sha256$$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW": passwordhash.ErrCost,
		"pbkdf2_sha256$0$salt$" + key:                                                passwordhash.ErrFormat,
		"pbkdf2_md5$1000$salt$" + key:                                                passwordhash.ErrFormat,
		"pbkdf2_sha256$1000$$" + key:                                                 passwordhash.ErrFormat,
		"pbkdf2:sha256$salt$00":                                                      passwordhash.ErrFormat,
		"scrypt$1048576$salt$8$1$" + key:                                             passwordhash.ErrCost,
		"scrypt$16384$salt$8$1000$" + key:                                            passwordhash.ErrCost,
		"scrypt$1000$salt$8$1$" + key:                                                passwordhash.ErrFormat,
		"scrypt$16384$salt$0$1$" + key:                                               passwordhash.ErrFormat,
		"$scrypt$ln=63,r=8,p=1$c2Vhc2FsdCE$" + key:                                   passwordhash.ErrFormat,
		"$scrypt$ln=25,r=8,p=1$c2Vhc2FsdCE$" + key:                                   passwordhash.ErrCost,
		strings.Replace(firebase, "n=14", "n=24", 1):                                 passwordhash.ErrCost,
		strings.Replace(firebase, "v=1", "v=2", 1):                                   passwordhash.ErrFormat,
		strings.Replace(firebase, ",sk=", ",", 1):                                    passwordhash.ErrFormat,
		strings.Replace(firebase, "$42xEC+ixf3L2lw==$", "$$", 1):                     passwordhash.ErrFormat,
	}
	for stored, want := range faults {
		h, err := passwordhash.Parse(stored)
		if !errors.Is(err, want) || h != nil {
			t.Errorf("%.80s: %v, %v, want %v", stored, h, err, want)
		}
		if err != nil && stored != "" && len(stored) > 20 && strings.Contains(err.Error(), stored) {
			t.Errorf("%.80s is in the error", stored)
		}
	}
}

// FuzzParse checks that what is parsed can be compared in a bounded time, and that nothing
// panics.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA", "$2a$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
		"pbkdf2_sha256$1$s$jbu7IkbRD5VtvV9ziNvcqNHxXuBd4+gsmw9KgWiw4GI=", "scrypt:2:1:1$s$00112233445566778899aabbccddeeff", firebase,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		h, err := passwordhash.Parse(stored)
		if (h == nil) != (err != nil) {
			t.Errorf("%v, %v", h, err)
		}
	})
}
