package container

import (
	"errors"
	"io"

	"filippo.io/age"
)

// Reseal copies an archive, encrypted for other recipients. It changes nothing else and
// checks no records: see Reader. Errors of src and dst are returned as they are; other errors
// are a *stoa.Error.
func Reseal(dst io.Writer, src io.Reader, recipients []age.Recipient, identities ...age.Identity) error {
	r := &Reader{src: sourceReader{r: src}}
	content, err := age.Decrypt(&r.src, identities...)
	if err != nil {
		return r.openError(err)
	}
	out := &destination{w: dst}
	sealed, err := age.Encrypt(out, recipients...)
	if err != nil {
		return err
	}
	if _, err := io.Copy(sealed, content); err != nil {
		if out.err != nil {
			return out.err
		}
		return r.readError(err)
	}
	return sealed.Close()
}

// destination remembers the first error of the writer.
type destination struct {
	w   io.Writer
	err error
}

func (d *destination) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.err = errors.Join(d.err, err)
	return n, err
}
