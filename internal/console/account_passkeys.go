package console

import (
	"encoding/json"
	"net/http"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/keyring"
)

func (c *Console) passkeyRoutes() []Route {
	return []Route{
		{Pattern: "GET /account/passkeys", RouteOptions: view(Person), Handle: c.passkeys},
		{Pattern: "POST /account/passkeys/begin", RouteOptions: signInForm(Person), Handle: c.beginPasskey},
		{Pattern: "POST /account/passkeys", RouteOptions: signInForm(Person), Handle: c.addPasskey},
		{Pattern: "GET /account/passkeys/{passkey}", RouteOptions: view(Person), Handle: c.passkey},
		{Pattern: "POST /account/passkeys/{passkey}", RouteOptions: form(Person), Handle: c.renamePasskey},
		{Pattern: "POST /account/passkeys/{passkey}/remove", RouteOptions: form(Person), Handle: c.removePasskey},
	}
}

// passkeysView fills the list of the caller's passkeys.
type passkeysView struct {
	Form      ui.Form
	List      []accounts.Passkey
	Verified  bool
	Available bool
}

// passkeyAskView fills a page on which the browser asks an authenticator.
type passkeyAskView struct {
	Title, Text string
	Create      bool
	Action      string // takes the answer
	Options     string // JSON
	Token       string
	Name        string // of a new passkey
	Next        signInView
	Cancel      string
}

func (v passkeyAskView) kind() string {
	if v.Create {
		return "create"
	}
	return "get"
}

func (c *Console) passkeys(w http.ResponseWriter, r *Request) error {
	return c.showPasskeys(w, r, ui.Form{})
}

func (c *Console) showPasskeys(w http.ResponseWriter, r *Request, f ui.Form) error {
	list, err := c.Accounts.Passkeys(r.Context(), r.Principal)
	if err != nil {
		return err
	}
	v := passkeysView{Form: f, List: list, Verified: r.User.EmailVerified, Available: c.Accounts.PasskeysAvailable()}
	return c.render(w, r, f.Status(), accountFrame("passkeys", "Passkeys"), passkeysPage(v))
}

// beginPasskey shows the page on which the browser makes the passkey.
func (c *Console) beginPasskey(w http.ResponseWriter, r *Request) error {
	var challenge accounts.PasskeyChallenge
	err := accounts.CheckPasskeyName(r.PostForm.Get("name"))
	if err == nil {
		challenge, err = c.Accounts.BeginPasskeyRegistration(r.Context(), r.Principal, keyring.Secret{})
	}
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showPasskeys(w, r, form)
	}
	return c.render(w, r, http.StatusOK, accountFrame("passkeys", "Add a passkey"), passkeyAskPage(passkeyAskView{
		Title: "Add a passkey", Text: "Your device asks you to confirm with your fingerprint, face or PIN.", Create: true,
		Action: "/account/passkeys", Options: string(challenge.Options), Token: challenge.Token.Reveal(), // of the caller's own challenge
		Name: r.PostForm.Get("name"), Cancel: "/account/passkeys",
	}))
}

// passkeyAnswer returns the answer that the script put into a form.
func passkeyAnswer(r *Request) accounts.PasskeyAnswer {
	return accounts.PasskeyAnswer{Token: keyring.NewSecret(r.PostForm.Get("passkey-token")), Response: json.RawMessage(r.PostForm.Get("credential"))}
}

func (c *Console) addPasskey(w http.ResponseWriter, r *Request) error {
	passkey, codes, err := c.Accounts.FinishPasskeyRegistration(r.Context(), r.Principal, passkeyAnswer(r), r.PostForm.Get("name"))
	if err != nil {
		form, err := refusedPasskey(r, err)
		if err != nil {
			return err
		}
		return c.showPasskeys(w, r, form)
	}
	if len(codes) > 0 {
		plain := make([]string, len(codes))
		for i, code := range codes {
			plain[i] = code.Reveal()
		}
		return c.render(w, r, http.StatusOK, accountFrame("passkeys", "Recovery codes"), passkeyCodesPage(passkey.Name, plain))
	}
	return redirect(w, r, "/account/passkeys", passkey.Name+" was added. You can sign in with it now.")
}

// refusedPasskey is refused for the answer of an authenticator, in which there is
// nothing to correct: the person starts again.
func refusedPasskey(r *Request, err error) (ui.Form, error) {
	if code := stoa.CodeOf(err); code == stoa.TokenInvalid || code == stoa.TokenExpired {
		err = stoa.Errorf(stoa.InvalidRequest, "That took too long, or was sent before. Try again.")
	}
	f, err := refused(r, err)
	if err == nil && f.Faults["credential"] != "" {
		f.Fault = "The answer of your device was not accepted. Try again."
	}
	return f, err
}

// passkeyOf returns the caller's passkey that the path names.
func (c *Console) passkeyOf(r *Request) (accounts.Passkey, error) {
	id, err := stoa.ParseID[accounts.PasskeyID](r.PathValue("passkey"))
	if err != nil {
		return accounts.Passkey{}, notFound()
	}
	list, err := c.Accounts.Passkeys(r.Context(), r.Principal)
	if err != nil {
		return accounts.Passkey{}, err
	}
	for _, p := range list {
		if p.ID == id {
			return p, nil
		}
	}
	return accounts.Passkey{}, notFound()
}

func (c *Console) passkey(w http.ResponseWriter, r *Request) error {
	return c.showPasskey(w, r, ui.Form{})
}

func (c *Console) showPasskey(w http.ResponseWriter, r *Request, f ui.Form) error {
	passkey, err := c.passkeyOf(r)
	if err != nil {
		return err
	}
	return c.render(w, r, f.Status(), accountFrame("passkeys", "Passkey"), passkeyPage(passkey, f))
}

func (c *Console) renamePasskey(w http.ResponseWriter, r *Request) error {
	id, err := stoa.ParseID[accounts.PasskeyID](r.PathValue("passkey"))
	if err != nil {
		return notFound()
	}
	passkey, err := c.Accounts.RenamePasskey(r.Context(), r.Principal, id, r.PostForm.Get("name"))
	if err != nil {
		form, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showPasskey(w, r, form)
	}
	return redirect(w, r, "/account/passkeys", "The passkey is called "+passkey.Name+" now.")
}

func (c *Console) removePasskey(w http.ResponseWriter, r *Request) error {
	id, err := stoa.ParseID[accounts.PasskeyID](r.PathValue("passkey"))
	if err != nil {
		return notFound()
	}
	err = c.Accounts.RemovePasskey(r.Context(), r.Principal, id, keyring.Secret{})
	switch {
	case isGone(err):
		return redirect(w, r, "/account/passkeys", "That passkey had been removed already.")
	case err != nil:
		return err
	}
	return redirect(w, r, "/account/passkeys", "The passkey was removed. Delete it on your device too: it no longer signs in.")
}
