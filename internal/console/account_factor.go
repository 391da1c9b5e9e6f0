package console

import (
	"encoding/base64"
	"net/http"

	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) factorRoutes() []Route {
	person := RouteOptions{Kind: SignIn, Scope: Person}
	return []Route{
		{Pattern: "GET /account/second-factor", RouteOptions: view(Person), Handle: c.factor},
		{Pattern: "POST /account/second-factor", RouteOptions: person, Handle: c.enrolFactor},
		{Pattern: "POST /account/second-factor/confirm", RouteOptions: person, Handle: c.confirmFactor},
		{Pattern: "POST /account/second-factor/disable", RouteOptions: person, Handle: c.disableFactor},
	}
}

// factorView fills the page of the second factor.
type factorView struct {
	Form     ui.Form
	Enabled  bool
	Left     int // recovery codes
	Verified bool
}

// enrolmentView fills the page that shows an enrolment.
type enrolmentView struct {
	Form   ui.Form
	QRCode string // a data: URL; empty when the enrolment was shown before
	Secret string // base32, in groups of four
}

// qrCodeSize is the width of the QR code in pixels, twice that on the page.
const qrCodeSize = 440

func (c *Console) factor(w http.ResponseWriter, r *Request) error {
	return c.showFactor(w, r, ui.Form{})
}

func (c *Console) showFactor(w http.ResponseWriter, r *Request, f ui.Form) error {
	v := factorView{Form: f, Verified: r.User.EmailVerified}
	var err error
	if v.Enabled, v.Left, err = c.Accounts.HasFactor(r.Context(), r.Principal); err != nil {
		return err
	}
	return c.render(w, r, f.Status(), accountFrame("second-factor", "Second factor"), factorPage(v))
}

// enrolFactor shows the secret in its answer: it is in no address and stored nowhere
// but encrypted.
func (c *Console) enrolFactor(w http.ResponseWriter, r *Request) error {
	e, err := c.Accounts.EnrolFactor(r.Context(), r.Principal, keyring.NewSecret(r.PostForm.Get("password")))
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showFactor(w, r, form)
	}
	picture, err := e.QRCode(qrCodeSize)
	if err != nil {
		return err
	}
	v := enrolmentView{QRCode: "data:image/png;base64," + base64.StdEncoding.EncodeToString(picture), Secret: inGroups(e.Secret.Reveal())}
	return c.render(w, r, http.StatusOK, accountFrame("second-factor", "Set up a second factor"), enrolmentPage(v))
}

// inGroups separates every four characters, as people read them.
func inGroups(s string) string {
	out := ""
	for i, r := range s {
		if i > 0 && i%4 == 0 {
			out += " "
		}
		out += string(r)
	}
	return out
}

func (c *Console) confirmFactor(w http.ResponseWriter, r *Request) error {
	codes, err := c.Accounts.ConfirmFactor(r.Context(), r.Principal, r.PostForm.Get("code"))
	if isGone(err) {
		return redirect(w, r, "/account/second-factor", "There is no second factor to confirm, or it is confirmed already.")
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.render(w, r, form.Status(), accountFrame("second-factor", "Set up a second factor"), enrolmentPage(enrolmentView{Form: form}))
	}
	plain := make([]string, len(codes))
	for i, code := range codes {
		plain[i] = code.Reveal()
	}
	return c.render(w, r, http.StatusOK, accountFrame("second-factor", "Recovery codes"), recoveryCodesPage(plain))
}

func (c *Console) disableFactor(w http.ResponseWriter, r *Request) error {
	if err := c.Accounts.DisableFactor(r.Context(), r.Principal, keyring.NewSecret(r.PostForm.Get("password"))); err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showFactor(w, r, form)
	}
	return redirect(w, r, "/account/second-factor", "Your account has no second factor any more.")
}
