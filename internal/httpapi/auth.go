package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
)

func (a *api) authRoutes() {
	tags := []string{"Auth"}
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePublic, maxBody: maxJSON},
		huma.Operation{OperationID: "auth.register", Method: http.MethodPost, Path: "/api/auth/register", Tags: tags, DefaultStatus: http.StatusCreated,
			Summary: "Open an account", Description: "Creates a user, a first store when storeName is given, and a session, all or nothing.",
			Errors: []int{400, 409, 413, 422}}, a.register)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAuth, scope: scopePublic, maxBody: maxJSON},
		huma.Operation{OperationID: "auth.login", Method: http.MethodPost, Path: "/api/auth/login", Tags: tags,
			Summary: "Open a session",
			Description: "For a user with a second factor the answer to the right password is 401 second_factor_required, with a challengeToken for " +
				"/api/auth/login/second-factor.",
			Errors: []int{400, 401, 413, 422}}, a.login)
	route(a, routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: maxJSON},
		huma.Operation{OperationID: "auth.refresh", Method: http.MethodPost, Path: "/api/auth/refresh", Tags: tags,
			Summary: "Exchange a refresh token for a new pair",
			Description: "The old refresh token is spent. Using a spent one revokes the whole session, but for the first 10 seconds, in which it gives the same " +
				"new refresh token: tabs that refresh at the same time do not sign each other out, and an answer that was lost can be asked for again.",
			Errors: []int{400, 401, 413, 422}}, a.refresh)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "auth.logout", Method: http.MethodPost, Path: "/api/auth/logout", Tags: tags, DefaultStatus: http.StatusNoContent,
			Summary: "End this session", Description: "Its access and refresh tokens stop working at once.", Errors: []int{401, 403}}, a.logout)
	route(a, routeOptions{timeout: requestTimeout, rate: rateCaller, scope: scopePerson, maxBody: noBody},
		huma.Operation{OperationID: "account.get", Method: http.MethodGet, Path: "/api/auth/me", Tags: tags,
			Summary: "The caller and their stores", Description: "With the caller's role in each store.", Errors: []int{401, 403}}, a.me)
}

type userView struct {
	ID            stoa.UserID `json:"id" format:"uuid"`
	Email         string      `json:"email" format:"email"`
	FirstName     string      `json:"firstName"`
	LastName      string      `json:"lastName"`
	Role          string      `json:"role" enum:"user,admin" doc:"What the user is to the platform"`
	EmailVerified bool        `json:"emailVerified"`
	CreatedAt     time.Time   `json:"createdAt"`
}

// SessionView has the tokens of a session. It is exported because huma reads only exported
// embedded structs.
type SessionView struct {
	User         userView `json:"user"`
	AccessToken  string   `json:"accessToken" doc:"Send it as Authorization: Bearer …"`
	RefreshToken string   `json:"refreshToken" doc:"Good for one exchange"`
	TokenType    string   `json:"tokenType" enum:"Bearer"`
	ExpiresIn    int      `json:"expiresIn" example:"900" doc:"Seconds until the access token expires"`
}

// newSessionView reveals the tokens to the caller they belong to, and records that caller for
// the access log.
func newSessionView(ctx context.Context, s accounts.Session) SessionView {
	identify(ctx, authz.Principal{UserID: s.User.ID})
	return SessionView{
		User: userView(s.User), AccessToken: s.AccessToken.Reveal(), RefreshToken: s.RefreshToken.Reveal(),
		TokenType: "Bearer", ExpiresIn: int(s.ExpiresIn.Seconds()),
	}
}

type sessionOutput struct{ Body SessionView }

type registerInput struct {
	Body struct {
		Email     string         `json:"email" format:"email" maxLength:"254" example:"owner@example.com"`
		Password  keyring.Secret `json:"password" doc:"10 to 256 characters, not a common one" example:"SecurePassword123!"`
		FirstName string         `json:"firstName" maxLength:"100" example:"John"`
		LastName  string         `json:"lastName" maxLength:"100" example:"Doe"`
		StoreName *string        `json:"storeName,omitempty" maxLength:"120" doc:"Makes a first store of this name" example:"My First Store"`
	}
}

type registerOutput struct {
	Location string `header:"Location"`
	Body     struct {
		SessionView
		Store *storeView `json:"store" doc:"null when no storeName was given"`
	}
}

func (a *api) register(ctx context.Context, in *registerInput) (*registerOutput, error) {
	session, store, err := a.Accounts.Register(ctx, accounts.Registration{
		Email: in.Body.Email, Password: in.Body.Password, FirstName: in.Body.FirstName, LastName: in.Body.LastName,
		StoreName: in.Body.StoreName, Client: requestOf(ctx).client,
	})
	if err != nil {
		return nil, err
	}
	out := &registerOutput{Location: "/api/auth/me"}
	out.Body.SessionView = newSessionView(ctx, session)
	if store != nil {
		about(ctx, store.ID)
		view := newStoreView(*store, nil)
		out.Body.Store = &view
	}
	return out, nil
}

type loginInput struct {
	Body struct {
		Email    string         `json:"email" maxLength:"254" example:"owner@example.com"`
		Password keyring.Secret `json:"password" example:"SecurePassword123!"`
	}
}

func (a *api) login(ctx context.Context, in *loginInput) (*sessionOutput, error) {
	session, err := a.Accounts.Login(ctx, in.Body.Email, in.Body.Password, requestOf(ctx).client)
	if err != nil {
		return nil, err
	}
	return &sessionOutput{newSessionView(ctx, session)}, nil
}

type refreshInput struct {
	Body struct {
		RefreshToken keyring.Secret `json:"refreshToken"`
	}
}

func (a *api) refresh(ctx context.Context, in *refreshInput) (*sessionOutput, error) {
	session, err := a.Accounts.Refresh(ctx, in.Body.RefreshToken, requestOf(ctx).client)
	if err != nil {
		return nil, err
	}
	return &sessionOutput{newSessionView(ctx, session)}, nil
}

func (a *api) logout(ctx context.Context, _ *struct{}) (*struct{}, error) {
	return nil, a.Accounts.Logout(ctx, principal(ctx))
}

type meOutput struct {
	ETag string `header:"ETag"`
	Body struct {
		User   userView    `json:"user"`
		Stores []storeView `json:"stores" doc:"The caller's stores, newest first, at most 100; GET /api/stores pages through all"`
	}
}

func (a *api) me(ctx context.Context, _ *struct{}) (*meOutput, error) {
	user, page, err := a.Accounts.MeWithStores(ctx, principal(ctx))
	if err != nil {
		return nil, err
	}
	out := &meOutput{ETag: quote(user.Version())}
	out.Body.User = userView(user)
	out.Body.Stores = a.storeViews(page.Stores)
	return out, nil
}
