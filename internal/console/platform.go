package console

// LandingView fills the platform's home page.
type LandingView struct {
	BaseURL     string // of the platform, such as http://localhost:3000
	Version     string
	Development bool // shows the quick start
}
