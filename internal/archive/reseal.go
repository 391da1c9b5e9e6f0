package archive

import (
	"io"

	"filippo.io/age"

	"github.com/stoahq/stoa/internal/archive/container"
)

// Reseal copies an archive, encrypted for other recipients. It changes nothing else and
// checks no rows: see Reader. Errors of src and dst are returned as they are; other errors
// are a *stoa.Error.
func Reseal(dst io.Writer, src io.Reader, recipients []age.Recipient, identities ...age.Identity) error {
	return container.Reseal(dst, src, recipients, identities...)
}
