package credential

// Snippet shows how one kind of software connects to a database.
type Snippet struct{ Title, Code string }

// caFile is the file name under which pages ask to save the server's certificate.
const caFile = "ca.pem"

// Snippets shows how software connects to c's database. It returns nothing for an embedded
// one.
func (c Credentials) Snippets() []Snippet {
	f := c.Engine.facts()
	if f.snippets == nil {
		return nil
	}
	return f.snippets(c, c.ConnectionString().Reveal())
}

func environment(url string, c Credentials) Snippet {
	return Snippet{Title: "Environment file (.env)", Code: "DATABASE_URL=\"" + url + "\"\nDATABASE_PASSWORD=\"" + c.Password.Reveal() + "\""}
}
