package testkit

import (
	"crypto/ecdsa"
	"crypto/x509"

	"github.com/descope/virtualwebauthn"
)

// NewPasskey returns a passkey of an authenticator in software. The library writes a
// coordinate of the public key without its leading zeros, which a server refuses: about
// one key in 128. Such keys are passed over.
func NewPasskey() virtualwebauthn.Credential {
	for {
		credential := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2)
		parsed, err := x509.ParsePKCS8PrivateKey(credential.Key.Data)
		if err != nil {
			panic(err) // the library has just written it
		}
		point, err := parsed.(*ecdsa.PrivateKey).PublicKey.Bytes() // 4, X, Y
		if err == nil && point[1] != 0 && point[33] != 0 {
			return credential
		}
	}
}
